"""Exports that cannot be used: absent, damaged, foreign, older or newer ones; and one on another file system."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import safetensors.torch
import torch
from support.workspaces.exported_model import exported

from alphafuse.errors import AlphafuseError, WorkspaceError
from alphafuse.serving.export_files import MODEL_FILE, WEIGHTS_FILE, Export
from alphafuse.serving.recommender import load
from alphafuse.stages import EXPORT_FORMAT
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.manifest import fingerprint

VECTORS = "vectors-000000000007.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    exported(folder)
    return folder / "export"


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [Path.unlink, _truncate, _flip])
@pytest.mark.parametrize("name", ["items-000000000014.parquet", VECTORS, WEIGHTS_FILE, MODEL_FILE, "manifest.json"])
def test_a_damaged_file_is_named(copy: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(copy / name)
    with pytest.raises(WorkspaceError, match=rf"copy/{name} cannot be used: .*export CONFIG --redo"):
        load(copy)


def test_files_that_were_exchanged_are_refused(copy: Path) -> None:
    shutil.copy(copy / VECTORS, copy / "vectors-000000000014.safetensors")
    with pytest.raises(WorkspaceError, match=r"vectors-000000000014\.safetensors cannot be used: its checksum differs"):
        load(copy)


def _write_again(folder: Path, write: Callable[[dict[str, bytes]], None], rows: int = 7) -> None:
    """Rewrite an export with other contents of files, as a program would that commits anything.

    Args:
        rows: number of rows in the record of the file `VECTORS`.
    """
    artifact = Artifact(Folder(str(folder)), "export", "export")
    manifest = artifact.require()
    files = {file.name: artifact.read_file(file.name) for file in manifest.files}
    write(files)
    for file in manifest.files:
        details = file.details | {"rows": rows} if file.name == VECTORS else file.details
        wanted = fingerprint(manifest.inputs)
        artifact.write_file(
            file.name, files[file.name], wanted, rows=file.rows, first_row=file.first_row, details=details
        )
    artifact.commit(manifest.inputs, manifest.details)


def _with_model(**fields: Any) -> Callable[[dict[str, bytes]], None]:
    def write(files: dict[str, bytes]) -> None:
        kept = {key: value for key, value in {**json.loads(files[MODEL_FILE]), **fields}.items() if value is not None}
        files[MODEL_FILE] = json.dumps(kept).encode()

    return write


def _with_vectors(tensors: dict[str, torch.Tensor]) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({VECTORS: safetensors.torch.save(tensors)})


def _unit(rows: int, dim: int) -> dict[str, torch.Tensor]:
    return {"vectors": torch.ones(rows, dim), "lengths": torch.ones(rows)}


@pytest.mark.parametrize(
    ("write", "rows", "message"),
    [
        (_with_model(format=None), 7, r"was exported by an older version of alphafuse \(format 0"),
        (_with_model(format=EXPORT_FORMAT + 1), 7, "was exported by a newer version of alphafuse"),
        (_with_model(similarity="euclidean"), 7, "model.json cannot be used: Input should be 'cosine' or 'dot'"),
        (_with_model(invented=1), 7, "model.json cannot be used: Extra inputs are not permitted"),
        (_with_model(encoder={"name": "shop:Own"}), 7, "cannot import 'shop:Own'"),
        (_with_model(history_length=9), 7, "weights.safetensors cannot be used: .*size mismatch"),
        (_with_model(item_dim=4), 7, "it holds .*vectors"),
        (_with_vectors(_unit(7, 5)), 7, r"it holds .*\(7, 5\)"),
        (_with_vectors({"vectors": torch.ones(7, 8)}), 7, "it holds .*vectors"),
        (_with_vectors({name: value.half() for name, value in _unit(7, 8).items()}), 7, "of float32"),
        (_with_vectors(_unit(6, 8)), 6, "it names 30 items and 29 vectors"),
        (lambda files: files.update({VECTORS: b"no tensors"}), 7, f"{VECTORS} cannot be used"),
    ],
)
def test_what_does_not_fit_is_refused(
    copy: Path, write: Callable[[dict[str, bytes]], None], rows: int, message: str
) -> None:
    _write_again(copy, write, rows)
    with pytest.raises(WorkspaceError, match=message):
        load(copy)


def test_vectors_that_are_not_finite_are_refused(copy: Path) -> None:
    _write_again(copy, _with_vectors({**_unit(7, 8), "vectors": torch.full((7, 8), torch.nan)}))
    with pytest.raises(Exception, match="7 item vectors of the model are not finite"):
        load(copy)


def test_states_that_are_not_finite_rank_nothing(copy: Path) -> None:
    def damage(files: dict[str, bytes]) -> None:
        weights = safetensors.torch.load(files[WEIGHTS_FILE])
        files[WEIGHTS_FILE] = safetensors.torch.save({name: value * torch.nan for name, value in weights.items()})

    _write_again(copy, damage)
    damaged = load(copy)
    for ask in (damaged.recommend, damaged.history_vectors):
        with pytest.raises(AlphafuseError, match="2 hidden states of the model are not finite: the training has div"):
            ask([["item 3"], ["item 8", "item 9"]])


def test_a_folder_without_an_export_is_refused(tmp_path: Path, whole: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(WorkspaceError, match="holds no finished export: give the folder `export` of a workspace"):
            load(folder)
    with pytest.raises(WorkspaceError, match="it is the manifest of 'model'"):
        load(whole.parent / "model")


def test_an_export_elsewhere_is_copied_for_the_time_of_loading(whole: Path, tmp_path: Path) -> None:
    storage = fsspec.filesystem("memory")
    storage.put(f"{whole}/", "/shop/v1/", recursive=True)
    try:
        far = load("memory://shop/v1")
    finally:
        storage.rm("/shop", recursive=True)
    near = load(str(whole))
    histories = [["item 3", "item 8"], ["item 29"]]
    np.testing.assert_array_equal(far.history_vectors(histories), near.history_vectors(histories))
    assert far.recommend(histories) == near.recommend(histories)


def test_vectors_are_mapped_and_not_copied(whole: Path) -> None:
    own = Export.find(whole).vectors()[0][8:9]
    assert f"{whole}/{VECTORS}" in Path("/proc/self/maps").read_text()
    before = own.clone()
    own += 1  # in this process alone: the file stays as it is
    assert torch.equal(Export.find(whole).vectors()[0][8:9], before)
