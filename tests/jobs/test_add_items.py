"""Items between two trainings: export and deltas together against an export that was made whole."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from support.faults.killed_writes import Killed, kill_at
from support.processes.gloo_workers import without_ray
from support.workspaces.exported_model import DIFFUSION, DREAMREC, exported
from support.workspaces.tiny_workspace import (
    EMBEDDING_DIM,
    NULL_DIM,
    tiny_config,
    tiny_embeddings,
    tiny_nullspace,
    tiny_workspace,
)

from alphafuse.config import Config, parse_config
from alphafuse.data.hashing import hash_ids, hash_texts
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import ConfigError, DataError, UnfinishedError, WorkspaceError
from alphafuse.events import Listener, Progress, ignore
from alphafuse.serving.export_files import Export
from alphafuse.serving.recommender import Recommender, load
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.matrices import to_column
from alphafuse.storage.ownership import Guard
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.checkpoint import DENSE_FILE
from alphafuse.training.checkpoints.table_rows import write_table_rows
from alphafuse.training.objectives.objective_building import build_objective
from jobs import add_items
from jobs.stages import export, recommend
from monitoring.terminal.run_console import RunConsole

OLD, NEW = range(24), range(24, 30)
HISTORIES = [["item 3", "item 5"], ["item 7"], ["item 26", "item 1"], ["item 0", "item 29", "item 28"]]


def _in_order(numbers: Sequence[int]) -> list[int]:
    """Items in the order of a catalog."""
    hashes = hash_ids(pa.array([f"item {number}" for number in numbers]))
    return [numbers[place] for place in np.argsort(hashes)]


def _names(numbers: Sequence[int], column: str) -> list[str]:
    return [f"{column} {number}" if column != "item_id" else f"item {number}" for number in numbers]


def _rows(numbers: Sequence[int]) -> torch.Tensor:
    """Trained rows; zeros for items that no training has seen."""
    rows = torch.from_numpy(np.random.default_rng(5).standard_normal((30, NULL_DIM)).astype(np.float32))
    rows[NEW.start :] = 0
    return rows[list(numbers)]


def _exported(folder: Path, numbers: Sequence[int], similarity: str = "cosine") -> Config:
    """The export of a model of some items, with features that are projections of the embeddings."""
    tree = tiny_config(folder).model_dump(mode="json")
    tree["train"]["loss"]["similarity"] = similarity
    tree["data"]["folder"] = str(folder.parent)
    config, workspace, order = parse_config(tree), tiny_workspace(folder), _in_order(numbers)
    index, count = pa.array(np.arange(len(order))), len(order)
    texts, embeddings = _names(order, "text"), tiny_embeddings()[order]
    tables = {
        "catalog": {
            "item_index": index,
            "item_id": _names(order, "item_id"),
            "text": texts,
            "title": _names(order, "title"),
            "text_hash": hash_texts(pa.array(texts)),
        },
        "embeddings": {"item_index": index, "embedding": to_column(embeddings)},
        "features": {"item_index": index, "features": to_column(tiny_nullspace().project(embeddings))},
        "popularity": {"item_index": index, "count": pa.array(np.zeros(count, np.int64))},
    }
    files, inputs = {"popularity": "popularity.parquet"}, {"items": order}
    for name, columns in tables.items():
        artifact = workspace.artifact(name)
        artifact.clear()
        artifact.write_table(files.get(name, "part-00000.parquet"), pa.table(columns), fingerprint(inputs))
        artifact.commit(inputs, {"dim": EMBEDDING_DIM})
    objective, artifact = build_objective(config, workspace, Communicator()), workspace.artifact("model")
    if objective.encoder.trainable_dim:
        write_table_rows(artifact, fingerprint(inputs), 0, {"rows": _rows(order)[:, : objective.encoder.trainable_dim]})
    artifact.write_file(DENSE_FILE, safetensors.torch.save(objective.state_dict()), fingerprint(inputs))
    artifact.commit(inputs, {"best": {"epoch": 1}})
    with without_ray() as patch:
        patch.setattr(export, "ITEMS_PER_SHARD", 7)
        export.run(config, workspace, ignore)
    return config


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replace the stage `embed`; collects the texts that each call embeds. A text "" has no embedding."""
    calls: list[list[str]] = []

    def run(config: Config, workspace: Workspace, listen: Listener) -> None:
        catalog, artifact = workspace.artifact("catalog"), workspace.artifact("embeddings")
        texts = catalog.read_table(catalog.require().files[0])["text"].to_pylist()
        calls.append(texts)
        listen(Progress("embed", len(texts), len(texts), "texts"))
        inputs = {"catalog": catalog.require().fingerprint}
        vectors = np.stack(
            [tiny_embeddings()[int(text.split()[1])] if text else np.zeros(EMBEDDING_DIM) for text in texts]
        )
        column = to_column(vectors.astype(np.float32), np.array([not text for text in texts]))
        table = pa.table({"item_index": np.arange(len(texts)), "embedding": column})
        artifact.write_table("part-00000.parquet", table, fingerprint(inputs))
        artifact.commit(inputs, {"dim": EMBEDDING_DIM})

    monkeypatch.setattr(add_items.embed, "run", run)
    monkeypatch.setattr(add_items, "connected", lambda config: nullcontext())
    return calls


def _file(folder: Path, numbers: Sequence[int], **other: str) -> str:
    path = folder / f"items-{'-'.join(map(str, numbers))}.parquet"
    columns = {"item_id": _names(numbers, "item_id"), "text": [other.get("text", f"text {n}") for n in numbers]}
    pq.write_table(pa.table(columns), path)
    return str(path)


def _files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _add(config: Config, path: str | None = None, remove: str | None = None) -> add_items.Added:
    with RunConsole(io.StringIO()) as console:
        return add_items.run(config, Workspace(config.workspace), path, remove, console)


def _lists(recommender: Recommender, **options: Any) -> list[list[tuple[str, float]]]:
    return [[(item.item_id, item.score) for item in items] for items in recommender.recommend(HISTORIES, **options)]


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.filterwarnings("ignore:.*not in the catalog")
def test_export_and_deltas_together_are_the_whole_export(
    tmp_path: Path, embedded: list[list[str]], similarity: str
) -> None:
    config = _exported(tmp_path / "base", OLD, similarity)
    before = load(config.workspace)
    old = before.score(HISTORIES[:2], _names(OLD, "item_id"))
    files = _files(tmp_path / "base")
    assert _add(config, _file(tmp_path, NEW[:4])) == add_items.Added(4, 0, 0, 1)
    assert _add(config, _file(tmp_path, [*OLD[:2], *NEW])) == add_items.Added(2, 0, 0, 2)
    assert sorted(text for texts in embedded for text in texts) == _names(NEW, "text")
    assert _files(tmp_path / "base").items() >= files.items()
    added = {path.parts[:2] for path in _files(tmp_path / "base").keys() - files.keys()}
    assert added == {("export", "deltas")}

    shutil.copytree(tmp_path / "base" / "export", tmp_path / "copy")
    together, whole = load(tmp_path / "copy"), load(_exported(tmp_path / "whole", [*OLD, *NEW], similarity).workspace)
    everything = _names(range(30), "item_id")
    np.testing.assert_array_equal(together.item_vectors(everything), whole.item_vectors(everything))
    np.testing.assert_array_equal(together.item_vectors(everything[:24]), before.item_vectors(everything[:24]))
    np.testing.assert_array_equal(together.score(HISTORIES[:2], everything[:24]), old)
    np.testing.assert_array_equal(together.history_vectors(HISTORIES), whole.history_vectors(HISTORIES))
    assert _lists(together, k=30) == _lists(whole, k=30)
    assert together.ranks(HISTORIES, ["item 28"] * 4).tolist() == whole.ranks(HISTORIES, ["item 28"] * 4).tolist()
    assert [item.item_id for item in together.similar_items(["item 27"], 29)[0]] == [
        item.item_id for item in whole.similar_items(["item 27"], 29)[0]
    ]
    assert (together.num_items, "item 29" in together, together.fingerprint) == (30, True, before.fingerprint)


def test_the_same_call_again_does_nothing(tmp_path: Path, embedded: list[list[str]]) -> None:
    config, path = _exported(tmp_path / "base", OLD), _file(tmp_path, NEW)
    assert _add(config, path, path) == add_items.Added(6, 0, 0, 1)
    assert _add(config, path) == add_items.Added(0, 0, 0, 0)
    assert len(embedded) == 1


@pytest.mark.filterwarnings("ignore:.*not in the catalog")
def test_removed_items_are_never_recommended(tmp_path: Path, embedded: list[list[str]]) -> None:
    config = _exported(tmp_path / "base", OLD)
    _add(config, _file(tmp_path, NEW))
    everything = load(config.workspace)
    gone = ["item 5", "item 11", "item 26"]
    assert _add(config, remove=_file(tmp_path, [5, 11, 26, 99])) == add_items.Added(0, 0, 3, 2)
    left = load(config.workspace)
    for exclude_seen in (True, False):
        lists = _lists(everything, k=30, exclude_seen=exclude_seen)
        wanted = [[pair for pair in items if pair[0] not in gone] for items in lists]
        assert _lists(left, k=30, exclude_seen=exclude_seen) == wanted
    ranks = left.ranks([["item 3", "item 5"]] * 2, ["item 11", "item 4"])
    order = [item.item_id for item in left.recommend([["item 3", "item 5"]], k=30, exclude_seen=True)[0]]
    assert ranks.tolist() == [0, order.index("item 4") + 1]
    assert left.num_items == len(left.item_ids) == 27
    assert "item 5" not in left
    with pytest.raises(DataError, match="no item 'item 5'"):
        left.similar_items(["item 5"])
    assert {item.item_id for item in left.similar_items(["item 4"], 30)[0]} == {*left.item_ids.to_pylist()} - {"item 4"}
    # Its vector still tells what a user liked.
    np.testing.assert_array_equal(left.history_vectors([["item 5"]]), everything.history_vectors([["item 5"]]))

    # It comes back with another text.
    path = tmp_path / "back.parquet"
    pq.write_table(pa.table({"item_id": ["item 5"], "text": ["text 29"]}), path)
    assert _add(config, str(path)) == add_items.Added(1, 0, 0, 3)
    again = load(config.workspace)
    assert (again.num_items, "item 5" in again) == (28, True)
    assert sum(item_id == "item 5" for item_id, _ in _lists(again, k=30)[1]) == 1


def test_the_stage_recommend_leaves_removed_items_out(tmp_path: Path, embedded: list[list[str]]) -> None:
    config = _exported(tmp_path / "base", range(30))
    workspace = Workspace(config.workspace)

    def lists() -> list[list[str]]:
        artifact = workspace.artifact("recommendations")
        artifact.clear()
        with without_ray():
            recommend.run(config, workspace, ignore)
        return artifact.read_table(artifact.require().files[0])["item_ids"].to_pylist()

    before = lists()
    gone = before[0][:3]
    _add(config, remove=_file(tmp_path, [int(item.split()[1]) for item in gone]))
    after = lists()
    assert not {item for items in after for item in items} & {*gone}
    assert after[0][: len(before[0]) - 3] == before[0][3:]

    owned = workspace.guarded(Guard(workspace.events, "token", "here"))
    owned.redo.begin(["recommendations", "export", "report"], reusing=())
    with without_ray():
        recommend.run(config, owned, ignore)
    again = owned.artifact("recommendations")
    assert again.read_table(again.require().files[0])["item_ids"].to_pylist() == after


@pytest.mark.filterwarnings("ignore:.*not in the catalog")
def test_an_item_in_both_files_is_replaced(tmp_path: Path, embedded: list[list[str]]) -> None:
    config, path = _exported(tmp_path / "base", OLD), tmp_path / "changed.parquet"
    pq.write_table(pa.table({"item_id": ["item 4"], "text": ["text 27"]}), path)
    before = load(config.workspace)
    assert _add(config, str(path), str(path)) == add_items.Added(1, 0, 1, 1)
    after = load(config.workspace)
    assert after.num_items == before.num_items
    assert not np.array_equal(after.item_vectors(["item 4"]), before.item_vectors(["item 4"]))
    assert [item for item, _ in _lists(after, k=30)[1]].count("item 4") == 1


def test_items_without_a_text_are_left_out(tmp_path: Path, embedded: list[list[str]]) -> None:
    config, path = _exported(tmp_path / "base", OLD), tmp_path / "some.parquet"
    pq.write_table(pa.table({"item_id": ["item 25", "bare", None], "text": ["text 25", "", "text 26"]}), path)
    assert _add(config, str(path)) == add_items.Added(1, 1, 0, 1)
    assert "bare" not in load(config.workspace)
    with pytest.raises(DataError, match="none of the 1 new items"):
        _add(config, str(path))


def test_an_interrupted_call_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: list[list[str]]
) -> None:
    config, path = _exported(tmp_path / "base", OLD), _file(tmp_path, NEW)
    before = load(config.workspace)
    for name in ("untrained_vectors", "vectors_to_bytes", "delta_at"):
        with monkeypatch.context() as patch:
            patch.setattr(add_items, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                _add(config, path)
        assert load(config.workspace).num_items == before.num_items
    assert _add(config, _file(tmp_path, NEW[:3])).items == 3  # other items than those of the interrupted call
    assert _add(config, path).items == 3
    assert not (tmp_path / "base" / "adding").exists()


def test_a_kill_at_any_write_leaves_all_items_or_none(tmp_path: Path, embedded: list[list[str]]) -> None:
    original, path = _exported(tmp_path / "base", OLD), _file(tmp_path, NEW)
    for moment in range(100):
        folder = tmp_path / f"run {moment}"
        shutil.copytree(original.workspace, folder)
        config = original.model_copy(update={"workspace": str(folder)})
        with pytest.MonkeyPatch.context() as patch:
            calls = kill_at(patch, moment)
            with suppress(Killed):
                _add(config, path)
        if len(calls) <= moment:
            break
        assert len(Export.find(folder).names()) in (24, 30)
        (folder / "events" / "heartbeat.json").unlink(missing_ok=True)  # a killed process is dead, and this one is not
        _add(config, path)
        assert len(Export.find(folder).names()) == 30
        assert len({*(folder / "export" / "deltas").iterdir()}) == 1
    assert moment > 10


def test_deltas_of_another_export_and_gaps_are_refused(tmp_path: Path, embedded: list[list[str]]) -> None:
    config, other = _exported(tmp_path / "base", OLD), _exported(tmp_path / "other", OLD[:20])
    for path in (_file(tmp_path, NEW[:2]), _file(tmp_path, NEW[2:])):
        _add(config, path)
    deltas = tmp_path / "base" / "export" / "deltas"
    shutil.copytree(deltas, tmp_path / "other" / "export" / "deltas")
    with pytest.raises(WorkspaceError, match=r"it was made for another export.*add-items"):
        load(other.workspace)
    shutil.move(deltas / "000001", tmp_path / "away")
    with pytest.raises(WorkspaceError, match=r"000001/manifest\.json cannot be used: it is missing, but later"):
        load(config.workspace)
    shutil.move(deltas / "000002", deltas / "000001")
    with pytest.raises(WorkspaceError, match="does not follow from the delta before it"):
        load(config.workspace)
    shutil.rmtree(deltas / "000001")
    shutil.move(tmp_path / "away", deltas / "000001")
    (vectors,) = (deltas / "000001").glob("vectors-*.safetensors")
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"x")
    with pytest.raises(WorkspaceError, match="checksum differs"):
        load(config.workspace)


def test_encoders_that_know_items_by_training_alone_are_refused(tmp_path: Path, embedded: list[list[str]]) -> None:
    config = exported(tmp_path / "id", {"encoder": {"name": "id"}})
    with pytest.raises(ConfigError, match=r"'id' reads no texts.*alphafuse update"):
        _add(config, _file(tmp_path, NEW))
    assert _add(config, remove=_file(tmp_path, [1])).removed == 1
    with pytest.raises(UnfinishedError, match="run the stage 'train' first"):
        _add(tiny_config(tmp_path / "nothing"), _file(tmp_path, NEW))


@pytest.mark.parametrize(
    "name",
    ["alphafuse", "llminit", "morec", "whitenrec", "unisrec", "llm_esr", "idreamrec", "rlmrec_con", "rlmrec_gen"],
)
def test_every_encoder_adds_items_or_says_that_it_cannot(tmp_path: Path, embedded: list[list[str]], name: str) -> None:
    model = {"encoder": {"name": name}}
    if name == "idreamrec":
        config = exported(tmp_path / "run", model | {"backbone": DREAMREC}, **DIFFUSION)
    else:
        config = exported(tmp_path / "run", model | ({"hidden_dim": 6} if name == "whitenrec" else {}))
    path = tmp_path / "new.parquet"
    pq.write_table(pa.table({"item_id": ["new one", "new two"], "text": ["text 5", "text 9"]}), path)
    if name.startswith("rlmrec"):
        with pytest.raises(ConfigError, match=r"knows an item by training alone.*alphafuse update"):
            _add(config, str(path))
        return
    assert _add(config, str(path)).items == 2
    recommender = load(config.workspace)
    vectors = recommender.item_vectors(["new one", "new two"])
    assert np.isfinite(vectors).all()
    assert np.abs(vectors).sum(axis=1).min() > 0
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    assert len(recommender.recommend([["new one", "item 3"]], 5)[0]) == 5
