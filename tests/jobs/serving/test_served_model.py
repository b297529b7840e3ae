"""A served model: batches against single requests, and models that do not serve."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
import torch
from support.workspaces.exported_model import exported
from support.workspaces.tiny_workspace import NUM_ITEMS, tiny_sequences

from alphafuse.errors import WorkspaceError
from alphafuse.registry.version_registry import Registry
from alphafuse.serving.deltas import REMOVED_FILE, delta_at
from alphafuse.serving.export_files import ITEMS, VECTORS, Export, vectors_to_bytes
from alphafuse.serving.recommender import Recommender, Search, load
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from jobs.serving.model_source import FixedExport, Production
from jobs.serving.served_model import Asked, ServedModel


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "run"
    exported(folder)
    return folder


@pytest.fixture(scope="module")
def model(workspace: Path) -> ServedModel:
    return ServedModel(FixedExport(str(workspace)).current(), "exact")


def test_a_batch_gives_each_request_the_offline_list(workspace: Path, model: ServedModel) -> None:
    recommender = load(workspace)
    histories = [[f"item {item}" for item in history] for history in tiny_sequences()]
    batch = [Asked(history, 1 + row % 7, row % 3 > 0) for row, history in enumerate(histories)]
    batch.insert(5, Asked(["stranger", "item 4", "<b>"], 3, True))
    batch.insert(9, Asked(["stranger"], 3, True))
    batch.insert(0, Asked([], 3, True))
    answers = model.recommend(batch)
    for asked, answer in zip(batch, answers, strict=True):
        known = [item for item in asked.history if item.startswith("item ")]
        wanted = recommender.recommend([known], asked.k, asked.exclude_seen)[0] if known else []
        assert [item.item_id for item in answer.items] == [item.item_id for item in wanted]
        np.testing.assert_allclose([item.score for item in answer.items], [item.score for item in wanted], atol=1e-6)
        assert answer.unknown_items == [item for item in asked.history if not item.startswith("item ")]
        assert answer.model == model.location


def test_similar_items(workspace: Path, model: ServedModel) -> None:
    assert model.similar("item 3", 4).items == load(workspace).similar_items(["item 3"], 4)[0]
    assert model.similar("stranger", 4).items == []
    assert model.similar("stranger", 4).unknown_items == ["stranger"]
    assert len(model.similar("item 3", 500).items) == NUM_ITEMS - 1


def test_an_export_that_was_made_again_is_another_model(tmp_path: Path, workspace: Path, model: ServedModel) -> None:
    exported(tmp_path / "run", {"encoder": {"name": "id"}})
    source = FixedExport(str(tmp_path / "run"))
    before = source.current()
    assert before.fingerprint.startswith(before.version)
    assert before.fingerprint != model.location.fingerprint
    with pytest.raises(WorkspaceError, match="it has been made again"):
        ServedModel(dataclasses.replace(before, fingerprint=model.location.fingerprint), "exact")


def test_a_damaged_export_is_refused(tmp_path: Path) -> None:
    exported(tmp_path / "run")
    location = FixedExport(str(tmp_path / "run")).current()
    file = min((tmp_path / "run" / "export").glob("vectors-*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WorkspaceError, match="its checksum differs"):
        ServedModel(location, "exact")


@pytest.mark.parametrize(
    ("score", "message"), [(float("nan"), "a score that is not finite after a history of 1 items"), (None, "an empty")]
)
def test_a_model_that_refuses_a_probe_does_not_serve(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, score: float | None, message: str
) -> None:
    answered = Recommender.recommend

    def spoiled(recommender: Recommender, *arguments: object) -> list[list[object]]:
        lists = answered(recommender, *arguments)  # type: ignore[arg-type]
        return [[] if score is None else [dataclasses.replace(item, score=score) for item in each] for each in lists]

    monkeypatch.setattr(Recommender, "recommend", spoiled)
    with pytest.raises(WorkspaceError, match=message):
        ServedModel(FixedExport(str(workspace)).current(), "exact")


def test_the_version_in_production_is_served(tmp_path: Path, workspace: Path, model: ServedModel) -> None:
    source = Production(str(tmp_path / "registry"))
    with pytest.raises(WorkspaceError, match="has no version in production"):
        source.current()
    registry = Registry(source.registry)
    version = registry.add(Workspace(str(workspace)))
    registry.promote(version.id, None)
    location = source.current()
    assert (location.version, location.fingerprint) == (version.id, model.location.fingerprint)
    assert ServedModel(location, "exact").num_items == NUM_ITEMS


def test_items_of_a_delta_make_another_model(tmp_path: Path) -> None:
    exported(tmp_path / "run", index=True)
    source = FixedExport(str(tmp_path / "run"))
    before = source.current()
    export = Export.find(source.path)
    delta, inputs = delta_at(export.folder, 1), {"export": before.fingerprint, "before": ""}
    names = pa.table({"item_index": pa.array([NUM_ITEMS]), "item_id": ["newcomer"], "title": ["Newcomer"]})
    twin = load(source.path).item_vectors(["item 4"])
    delta.write_table(f"{ITEMS}{NUM_ITEMS:012d}.parquet", names, fingerprint(inputs), first_row=NUM_ITEMS)
    content, details = vectors_to_bytes(torch.from_numpy(twin), "cosine"), {"rows": 1}
    name = f"{VECTORS}{NUM_ITEMS:012d}.safetensors"
    delta.write_file(name, content, fingerprint(inputs), first_row=NUM_ITEMS, details=details)
    delta.write_file(REMOVED_FILE, b'["item 7"]', fingerprint(inputs))
    delta.commit(inputs)

    after = source.current()
    assert (after.version, after.fingerprint) == (f"{before.version}+1", before.fingerprint)
    assert after.content != before.content
    for search in get_args(Search):
        model = ServedModel(after, search)
        assert model.similar("item 4", 1).items[0].item_id == "newcomer"
        (offline,) = load(source.path).recommend([["newcomer"]], 5)
        found = model.recommend([Asked(["newcomer"], 5, True)])[0].items
        assert [item.item_id for item in found] == [item.item_id for item in offline]
        everything = model.recommend([Asked(["item 7", "item 4"], 100, False)])[0]
        assert {item.item_id for item in everything.items} == {*load(source.path).item_ids.to_pylist()}
        assert everything.model == after
