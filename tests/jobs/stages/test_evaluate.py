"""The evaluate stage against ranks counted by hand, on 1 to 3 ranks."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from support.processes.gloo_workers import run_on_gloo
from support.workspaces.tiny_workspace import tiny_config, tiny_model, tiny_sequences, tiny_workspace

from alphafuse.config import Config
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import WorkspaceError
from alphafuse.evaluation import ranks
from alphafuse.evaluation.ranks import read_ranks
from alphafuse.events import RANKING_SPANS, Event, Metrics, StageWarning, ignore
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from jobs.stages import evaluate

pytestmark = pytest.mark.distributed


@pytest.fixture(autouse=True)
def _workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "run_workers", run_on_gloo)


def _set_up(folder: Path, workers: int) -> tuple[Config, Workspace]:
    config, workspace = tiny_config(folder, workers=workers), tiny_workspace(folder)
    tiny_model(workspace, config)
    return config, workspace


def _ranks(config: Config, workspace: Workspace) -> np.ndarray:
    """Rank of every test target: 1 + the number of unseen items with a larger cosine, in float64."""
    model, sequences = load_trained(config, workspace, Communicator()), SequenceStore(workspace).read_all()
    found = []
    for user in range(sequences.num_users):
        items = sequences.of(user)
        for position in range(max(1, int(sequences.validation_end[user])), len(items)):
            history = torch.tensor(items[max(0, position - config.model.history_length) : position])
            state = model.hidden_states(history[None]).double()
            scores = torch.nn.functional.cosine_similarity(model.item_vectors().double(), state)
            higher = set((scores > scores[items[position]]).nonzero().flatten().tolist())
            found.append(1 + len(higher - set(items[:position].tolist())))
    return np.array(found)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_metrics_are_those_of_ranks_counted_by_hand(tmp_path: Path, workers: int) -> None:
    config, workspace = _set_up(tmp_path, workers)
    evaluate.run(config, workspace, ignore)
    artifact = workspace.artifact("evaluation")
    metrics = json.loads(artifact.folder.read_bytes("metrics.json"))
    expected = _ranks(config, workspace)
    assert metrics["queries"] == artifact.require().details["queries"] == len(expected) > 0
    for cutoff in (1, 5, 10):
        hit = expected <= cutoff
        assert metrics["overall"][f"hr@{cutoff}"] == pytest.approx(hit.mean())
        assert metrics["overall"][f"mrr@{cutoff}"] == pytest.approx((hit / expected).mean())
        assert metrics["overall"][f"ndcg@{cutoff}"] == pytest.approx((hit / np.log2(1 + expected)).mean())
    written = read_ranks(artifact, "user_id", "position", "item_index", "rank").to_pylist()
    assert [row["rank"] for row in written] == expected.tolist()
    sequences = dict(zip([f"user {number}" for number in range(24)], tiny_sequences(), strict=True))
    assert [(row["user_id"], row["position"]) for row in written] == [
        (f"user {user}", position) for user in (21, 22, 23) for position in range(1, len(sequences[f"user {user}"]))
    ]
    assert all(sequences[row["user_id"]][row["position"]] == row["item_index"] for row in written)


@pytest.mark.parametrize("workers", [1, 2])
def test_where_the_time_went_is_reported(tmp_path: Path, workers: int) -> None:
    config, workspace = _set_up(tmp_path, workers)
    events: list[Event] = []
    started = time.monotonic()
    summary = evaluate.run(config, workspace, events.append)
    elapsed = time.monotonic() - started
    times, quality = (event for event in events if isinstance(event, Metrics))
    assert (times.split, quality.split) == (None, "test")
    assert list(times.numbers) == [f"{span}_seconds" for span in RANKING_SPANS]
    measured = [taken for span, taken in zip(RANKING_SPANS, times.numbers.values(), strict=True) if span != "exchange"]
    assert all(taken > 0 for taken in measured)
    assert sum(times.numbers.values()) < elapsed
    assert summary is not None
    assert re.fullmatch(r"load \d+\.\d, data .*, product .*, lists .*, exchange \d+\.\d", str(summary["seconds"]))


def test_ranks_are_written_while_queries_go_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, workspace = _set_up(tmp_path, 1)
    monkeypatch.setattr(ranks, "GROUP_ROWS", 5)
    batches = config.evaluate.model_copy(update={"query_batch": 2})
    evaluate.run(config.model_copy(update={"evaluate": batches}), workspace, ignore)
    artifact = workspace.artifact("evaluation")
    metadata = artifact.read_parquet(artifact.file(ranks.FILE), lambda parquet: parquet.metadata)
    groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert sum(groups) == artifact.require().details["queries"]
    assert len(groups) > 1
    assert max(groups) < 5 + 2


def test_what_is_measured_is_kept_and_other_settings_are_refused(tmp_path: Path) -> None:
    config, workspace = _set_up(tmp_path, 1)
    events: list[Event] = []
    assert evaluate.run(config, workspace, events.append) is not None
    count = len(events)
    assert evaluate.run(config, workspace, events.append) is None
    assert len(events) == count
    faster = config.evaluate.model_copy(update={"query_batch": 3})
    evaluate.run(config.model_copy(update={"evaluate": faster}), workspace, events.append)
    other = config.evaluate.model_copy(update={"similarity": "dot"})
    with pytest.raises(WorkspaceError, match="similarity: 'cosine' → 'dot'"):
        evaluate.run(config.model_copy(update={"evaluate": other}), workspace, events.append)


def test_a_split_that_tests_nothing_is_told(tmp_path: Path) -> None:
    config, workspace = _set_up(tmp_path, 1)
    artifact = workspace.artifact("sequences")
    artifact.commit(artifact.require().inputs, {"targets": {"train": 9, "validation": 3, "test": 0}})
    events: list[Event] = []
    assert evaluate.run(config, workspace, events.append) is None
    assert [type(event) for event in events] == [StageWarning]
    assert workspace.artifact("evaluation").manifest() is None
