"""Artefacts: atomic files, manifests, refusal of other inputs, damage, and folders anywhere."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.errors import WorkspaceError
from alphafuse.storage.filesystem import retries
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.manifest import fingerprint, to_json
from alphafuse.storage.matrices import to_column
from alphafuse.storage.workspace import Workspace

INPUTS = {"model": "a", "train": {"rate": 1, "steps": 5}}


def _write(workspace: Workspace, rows: int = 3, name: str = "part-0.parquet", first_row: int = 0) -> None:
    table = pa.table({"x": list(range(rows))})
    workspace.artifact("catalog").write_table(name, table, fingerprint(INPUTS), first_row=first_row)


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_an_artifact_exists_once_it_is_committed(tmp_path: Path, scheme: str) -> None:
    workspace = Workspace(f"{scheme}{tmp_path}/run")
    artifact = workspace.artifact("catalog")
    with pytest.raises(WorkspaceError, match=r"holds no finished 'catalog'; run the stage 'prepare' first"):
        artifact.require()
    _write(workspace, 2, "part-1.parquet", first_row=3)
    _write(workspace)
    assert not artifact.is_committed(INPUTS)
    assert set(artifact.committed_files(fingerprint(INPUTS))) == {"part-0.parquet", "part-1.parquet"}
    artifact.commit(INPUTS, {"note": "ä"})
    assert artifact.is_committed(INPUTS)
    manifest = artifact.require()
    assert (manifest.rows, manifest.details) == (5, {"note": "ä"})
    assert [file.name for file in manifest.files] == ["part-0.parquet", "part-1.parquet"]  # in the order of the rows
    assert artifact.read_table(artifact.file("part-1.parquet"))["x"].to_pylist() == [0, 1]
    artifact.clear()
    assert artifact.manifest() is None
    assert artifact.folder.names() == []


def test_a_record_whose_file_is_gone_does_not_count(tmp_path: Path) -> None:
    """An interrupted deletion leaves such a record."""
    workspace = Workspace(str(tmp_path))
    for number in range(2):
        _write(workspace, 3, f"part-{number}.parquet", first_row=3 * number)
    (tmp_path / "catalog" / "part-0.parquet").unlink()
    artifact = workspace.artifact("catalog")
    assert set(artifact.committed_files(fingerprint(INPUTS))) == {"part-1.parquet"}
    assert [file.name for file in artifact.commit(INPUTS).files] == ["part-1.parquet"]


def test_relative_folders_are_the_same_for_processes_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    workspace = Workspace("runs/x")
    monkeypatch.chdir("/")
    _write(workspace)
    assert (tmp_path / "runs" / "x" / "catalog" / "part-0.parquet").exists()


def test_other_inputs_are_refused_with_the_difference(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    _write(workspace)
    other = {"model": "a", "train": {"rate": 2, "steps": 5}}
    with pytest.raises(WorkspaceError, match="was made by an earlier, different run"):
        workspace.artifact("catalog").is_committed(other)
    workspace.artifact("catalog").commit(INPUTS)
    with pytest.raises(WorkspaceError, match=r"train\.rate: 1 → 2.*--redo prepare"):
        workspace.artifact("catalog").is_committed(other)


def test_damage_is_found(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    _write(workspace)
    artifact = workspace.artifact("catalog")
    artifact.commit(INPUTS)
    artifact.verify()
    file = tmp_path / "catalog" / "part-0.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-20])
    with pytest.raises(WorkspaceError, match=r"part-0\.parquet cannot be used: its checksum differs .*--redo prepare"):
        artifact.verify()
    with pytest.raises(WorkspaceError, match=r"part-0\.parquet cannot be used"):
        artifact.read_table(artifact.file("part-0.parquet"))
    file.unlink()
    with pytest.raises(WorkspaceError, match="it is missing"):
        artifact.verify()
    (tmp_path / "catalog" / "manifest.json").write_text("{")
    with pytest.raises(WorkspaceError, match=r"manifest\.json cannot be used"):
        artifact.manifest()


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    folder = Workspace(str(tmp_path)).folder
    folder.write_bytes("a", b"first")
    with pytest.raises(TypeError):
        folder.write_bytes("a", "no bytes")  # type: ignore[arg-type]
    assert folder.read_bytes("a") == b"first"
    assert folder.names() == ["a"]  # and no temporary file remains


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_a_table_written_part_by_part_is_there_once_it_is_whole(tmp_path: Path, scheme: str) -> None:
    artifact = Workspace(f"{scheme}{tmp_path}/run").artifact("evaluation")
    schema, wanted = pa.schema({"x": pa.int64()}), fingerprint(INPUTS)
    with contextlib.suppress(InterruptedError), artifact.writing_table("x.parquet", schema, wanted) as append:
        append(pa.table({"x": [1]}))
        raise InterruptedError
    assert artifact.folder.names() == []
    with artifact.writing_table("x.parquet", schema, wanted) as append:
        append(pa.table({"x": [1, 2]}))
        append(pa.table({"x": [3]}))
    assert artifact.read_table(artifact.record("x.parquet"))["x"].to_pylist() == [1, 2, 3]
    (record,) = artifact.commit(INPUTS).files
    assert (record.rows, record.bytes) == (3, len(artifact.folder.read_bytes("x.parquet")))
    artifact.verify()


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_borrowed_artifacts_lie_elsewhere_and_may_move_together(tmp_path: Path, scheme: str) -> None:
    shared = Workspace(f"{scheme}{tmp_path}/all/shared/one")
    _write(shared)
    shared.artifact("catalog").commit(INPUTS)
    run = Workspace(f"{scheme}{tmp_path}/all/run")
    assert run.artifact("catalog").manifest() is None
    run.borrow({"catalog": "../shared/one"})
    for workspace in (run, Workspace(run.folder.uri)):
        catalog = workspace.artifact("catalog")
        assert catalog.read_table(catalog.file("part-0.parquet"))["x"].to_pylist() == [0, 1, 2]
        assert workspace.artifact("model").folder.uri == f"{run.folder.uri}/model"
    with pytest.raises(WorkspaceError, match=r"borrows 'catalog' from .*shared/one.*not made again from here"):
        run.require_own(["model", "catalog"])
    run.require_own(["model"])
    if not scheme:
        (tmp_path / "all").rename(tmp_path / "moved")
        assert Workspace(str(tmp_path / "moved" / "run")).artifact("catalog").manifest() is not None


def test_rows_that_are_missing_or_doubled_are_not_committed(tmp_path: Path) -> None:
    artifact = Workspace(str(tmp_path)).artifact("catalog")
    for number, first in enumerate((0, 3, 7)):
        _write(Workspace(str(tmp_path)), 3, f"part-{number}.parquet", first_row=first)
    with pytest.raises(WorkspaceError, match=r"rows \[6, 7\) of 10 are missing\. .*--redo prepare"):
        artifact.commit(INPUTS, rows=10)
    _write(Workspace(str(tmp_path)), 3, "part-2.parquet", first_row=5)
    with pytest.raises(WorkspaceError, match=r"rows \[5, 6\) of 8 are in two files"):
        artifact.commit(INPUTS, rows=8)
    _write(Workspace(str(tmp_path)), 3, "part-2.parquet", first_row=6)
    with pytest.raises(WorkspaceError, match=r"rows \[9, 10\) of 10 are missing"):
        artifact.commit(INPUTS, rows=10)
    with pytest.raises(WorkspaceError, match=r"rows \[8, 9\) of 8 are in two files"):
        artifact.commit(INPUTS, rows=8)
    assert artifact.commit(INPUTS, rows=9).rows == 9


def test_a_file_of_another_size_does_not_count_as_written(tmp_path: Path) -> None:
    """A machine that loses its power may leave such a file, on storage that does not keep its promises."""
    workspace = Workspace(str(tmp_path))
    _write(workspace)
    _write(workspace, name="part-1.parquet", first_row=3)
    (tmp_path / "catalog" / "part-1.parquet").write_bytes(b"")
    assert set(workspace.artifact("catalog").committed_files(fingerprint(INPUTS))) == {"part-0.parquet"}


def test_what_killed_writers_left_goes_with_the_commit(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    _write(workspace)
    (tmp_path / "catalog" / ".part-0.parquet.0123.tmp").write_bytes(b"half of a fi")
    artifact = workspace.artifact("catalog")
    artifact.commit(INPUTS)
    assert artifact.folder.names() == [
        "manifest.copy.json",
        "manifest.json",
        "part-0.parquet",
        "part-0.parquet.record.json",
    ]


def test_a_flipped_bit_is_met_by_whoever_reads_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)
    workspace = Workspace(str(tmp_path))
    vectors = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    table = pa.table({"vector": to_column(vectors)})
    artifact = workspace.artifact("catalog")
    artifact.write_table("part-0.parquet", table, fingerprint(INPUTS))
    artifact.commit(INPUTS, rows=100)
    file = artifact.file("part-0.parquet")
    path = tmp_path / "catalog" / file.name
    content = bytearray(path.read_bytes())
    content[content.index(vectors[50].tobytes()) + 3] ^= 4  # one number is a little larger: only the checksum tells
    path.write_bytes(content)
    for read in (
        lambda: artifact.read_table(file),
        lambda: artifact.take_rows(file, np.array([50]), ["vector"]),
        lambda: list(artifact.iterate_parquet(file, "vector", [0], 10)),
    ):
        with pytest.raises(
            WorkspaceError, match=r"part-0\.parquet cannot be used.*(CRC|checksum).*verify CONFIG --repair"
        ):
            read()


def test_what_a_newer_program_wrote_is_not_read(tmp_path: Path) -> None:
    artifact = Workspace(str(tmp_path)).artifact("catalog")
    artifact.commit(INPUTS)
    newer = dataclasses.replace(artifact.require(), format_version=3)
    (tmp_path / "catalog" / "manifest.json").write_bytes(to_json(newer))
    with pytest.raises(
        WorkspaceError, match=r"catalog has format 3, this version of alphafuse reads up to 2: run a new"
    ):
        artifact.require()


def test_records_are_read_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, together = Workspace(str(tmp_path)), threading.Barrier(8, timeout=60)
    for number in range(8):
        _write(workspace, name=f"part-{number}.parquet", first_row=3 * number)
    read = Folder.read_bytes

    def waiting(folder: Folder, name: str) -> bytes:
        together.wait()  # passes when eight wait
        return read(folder, name)

    monkeypatch.setattr(Folder, "read_bytes", waiting)
    records = workspace.artifact("catalog").records()
    assert [records[f"part-{number}.parquet"].first_row for number in range(8)] == [3 * number for number in range(8)]
