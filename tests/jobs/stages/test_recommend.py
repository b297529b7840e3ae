"""Recommendations against a full sort of the catalog, on 1, 2 and 3 ranks, for every way to name users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.processes.gloo_workers import run_on_gloo
from support.workspaces.tiny_workspace import NUM_ITEMS, tiny_config, tiny_model, tiny_sequences, tiny_workspace

from alphafuse.config import Config
from alphafuse.data import users as log_users
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import DataError, StaleError, UnfinishedError, WorkspaceError
from alphafuse.evaluation.example_queries import HISTORY
from alphafuse.events import Event, StageWarning
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from jobs.stages import export, recommend
from jobs.stages.recommend_history import recommend_for_history

pytestmark = pytest.mark.distributed


@pytest.fixture(autouse=True)
def _workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommend, "run_workers", run_on_gloo)


def _set_up(folder: Path, workers: int = 1, **settings: Any) -> tuple[Config, Workspace]:
    config = tiny_config(folder, workers=workers)
    config = config.model_copy(update={"recommend": config.recommend.model_copy(update={"top_k": 4, **settings})})
    workspace = tiny_workspace(folder)
    tiny_model(workspace, config)
    return config, workspace


def _run(config: Config, workspace: Workspace) -> tuple[dict[str, dict[str, Any]], list[str]]:
    events: list[Event] = []
    recommend.run(config, workspace, events.append)
    artifact = workspace.artifact("recommendations")
    rows = [row for file in artifact.require().files for row in artifact.read_table(file).to_pylist()]
    warnings = [event.message for event in events if isinstance(event, StageWarning)]
    return {row.pop("user_id"): row for row in rows}, warnings


def _best(config: Config, workspace: Workspace, history: list[int], exclude_seen: bool = True) -> list[int]:
    model = load_trained(config, workspace, Communicator())
    state = model.hidden_states(torch.tensor([history[-config.model.history_length :]])).double()
    scores = torch.nn.functional.cosine_similarity(model.item_vectors().double(), state)
    left = [item for item in range(NUM_ITEMS) if not (exclude_seen and item in history)]
    return sorted(left, key=lambda item: -float(scores[item]))[:4]


@pytest.mark.parametrize(("workers", "exclude_seen"), [(1, True), (2, False), (3, True)])
def test_test_users_get_their_best_items(tmp_path: Path, workers: int, exclude_seen: bool) -> None:
    config, workspace = _set_up(tmp_path, workers, exclude_seen=exclude_seen)
    found, warnings = _run(config, workspace)
    histories = {f"user {user}": tiny_sequences()[user] for user in (21, 22, 23)}
    assert set(found) == set(histories)
    for user, history in histories.items():
        best = [f"item {item}" for item in _best(config, workspace, history, exclude_seen)]
        assert found[user]["item_ids"] == found[user]["titles"] == best
        assert found[user]["scores"] == sorted(found[user]["scores"], reverse=True)
    assert warnings == []
    details = workspace.artifact("recommendations").require().details
    assert (details["users"], details["top_k"]) == (3, 4)
    example = details["examples"][0]
    assert example["history"] == [f"item {item}" for item in histories[example["user_id"]][-HISTORY:]]
    assert [item["item_id"] for item in example["recommended"]] == found[example["user_id"]]["item_ids"]
    assert [item["text"] for item in example["recommended"]] == found[example["user_id"]]["titles"]  # the same here


def test_progress_counts_the_users_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommend, "USERS_PER_SHARD", 2)
    chunks = list(recommend._chunks(log_users.test_users(tiny_workspace(tmp_path))))
    assert [(chunk.users.tolist(), read) for chunk, read in chunks] == [([21, 22], 23), ([23], 24)]


def test_users_by_id(tmp_path: Path) -> None:
    users = tmp_path / "users.parquet"
    pq.write_table(pa.table({"user_id": ["user 3", None, "stranger", "user 0", "user 3"]}), users)
    config, workspace = _set_up(tmp_path / "run", 2, users=str(users))
    found, warnings = _run(config, workspace)
    assert list(found) == ["user 0", "user 3"]  # as in the log
    assert found["user 3"]["item_ids"] == [f"item {i}" for i in _best(config, workspace, tiny_sequences()[3])]
    assert warnings == [
        "1 left out: rows without user id",
        "1 left out: users named before",
        "1 left out: users not in the log",
    ]


def test_given_histories(tmp_path: Path) -> None:
    users = tmp_path / "users.parquet"
    histories = [
        ["item 4", "item 29", "no such item"],
        ["item 4"],
        ["nothing"],
        [],
        None,
        [f"item {i}" for i in range(9)],
    ]
    pq.write_table(pa.table({"user_id": list("abcdef"), "history": histories}), users)
    config, workspace = _set_up(tmp_path / "run", 2, users=str(users))
    found, warnings = _run(config, workspace)
    assert list(found) == ["a", "b", "f"]
    for user, history in {"a": [4, 29], "b": [4], "f": list(range(9))}.items():
        assert found[user]["item_ids"] == [f"item {item}" for item in _best(config, workspace, history)]
    assert warnings == ["2 left out: items not in the catalog", "3 left out: users without a known item"]


def test_shards_that_are_written_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommend, "USERS_PER_SHARD", 2)
    config, workspace = _set_up(tmp_path)
    first, _ = _run(config, workspace)
    artifact = workspace.artifact("recommendations")
    assert [file.rows for file in artifact.require().files] == [2, 1]
    kept = tmp_path / "recommendations" / "part-00000.parquet"
    written = kept.stat().st_mtime_ns
    artifact.uncommit()
    for name in ("part-00001.parquet", "part-00001.parquet.record.json"):
        (tmp_path / "recommendations" / name).unlink()
    assert _run(config, workspace)[0] == first
    assert kept.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": ["user 3"]}, "has no column 'user_id'"),
        ({"user_id": ["stranger"]}, r"nothing is left of .*users_not_in_the_log': 1"),
        ({"user_id": ["a"], "history": ["item 1"]}, "column 'history' must hold lists of item ids, found string"),
    ],
)
def test_bad_user_files_are_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "users.parquet")
    config, workspace = _set_up(tmp_path / "run", users=str(tmp_path / "users.parquet"))
    with pytest.raises((DataError, RuntimeError), match=message):
        _run(config, workspace)


def test_a_missing_user_file_is_named_with_its_key(tmp_path: Path) -> None:
    config, workspace = _set_up(tmp_path, users=str(tmp_path / "nobody.parquet"))
    with pytest.raises(DataError, match=r"recommend\.users: there is no file or folder .*nobody\.parquet"):
        _run(config, workspace)


def test_a_history_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "run_workers", run_on_gloo)
    config, workspace = _set_up(tmp_path, 2)
    with pytest.raises(UnfinishedError, match="run the stage 'export' first"):
        recommend_for_history(config, workspace, ["ITEM 7"])
    export.run(config, workspace, print)
    found = recommend_for_history(config, workspace, ["ITEM 7", " item 2"], 3)
    assert [item.item_id for item in found] == [f"item {item}" for item in _best(config, workspace, [7, 2])[:3]]
    assert [item.title for item in found] == [item.item_id for item in found]
    with pytest.raises(DataError, match=r"no item with the title or id 'itm 7'; did you mean '"):
        recommend_for_history(config, workspace, ["itm 7"])
    tiny_model(workspace, config, made_by="another hand")
    with pytest.raises(StaleError, match=r"export was made from other inputs .*--redo export"):
        recommend_for_history(config, workspace, ["item 7"])


def test_nothing_is_recommended_without_a_model(tmp_path: Path) -> None:
    workspace = tiny_workspace(tmp_path)
    for function in (
        lambda c: recommend.run(c, workspace, print),
        lambda c: recommend_for_history(c, workspace, []),
    ):
        with pytest.raises(WorkspaceError, match="run the stage 'train' first"):
            function(tiny_config(tmp_path))
