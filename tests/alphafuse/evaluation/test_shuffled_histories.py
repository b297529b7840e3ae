"""Histories in random order: what shuffling keeps, and how much models lose by it where order matters and where not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import NUM_ITEMS, NUM_USERS, tiny_config, tiny_workspace

from alphafuse.config import Config
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.evaluation.evaluator import evaluate
from alphafuse.evaluation.shuffled_histories import shuffled
from alphafuse.items.encoders.settings import IdConfig
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from alphafuse.training.loop import Trainer

GROUP_ITEMS = 6


def _histories(queries: int) -> np.ndarray:
    lengths = np.random.default_rng(3).integers(0, 7, queries)
    return np.where(np.arange(6) < lengths[:, None], np.arange(6) + 10 * np.arange(queries)[:, None], -1)


def test_every_history_keeps_its_items_and_its_padding() -> None:
    histories = _histories(200)
    found = shuffled(histories, 0)
    assert ((found < 0) == (histories < 0)).all()
    assert (np.sort(found, axis=1) == np.sort(histories, axis=1)).all()
    assert (found != histories).any()


def test_an_order_depends_on_the_number_of_its_query_alone() -> None:
    histories = _histories(20)
    parts = [shuffled(histories[start : start + 7], 100 + start) for start in range(0, 20, 7)]
    assert np.array_equal(np.concatenate(parts), shuffled(histories, 100))


def test_every_item_comes_to_every_place_equally_often() -> None:
    """1,500 of 6,000 each, with a standard deviation of 34."""
    found = shuffled(np.tile(np.arange(4), (6000, 1)), 0)
    counts = np.array([np.bincount(found[:, place], minlength=4) for place in range(4)])
    assert (np.abs(counts - 1500) < 170).all()


def _markov_chain() -> list[list[int]]:
    """Sequences in which every item has one successor."""
    starts = np.random.default_rng(2).integers(NUM_ITEMS, size=NUM_USERS)
    return [[(int(start) + 7 * step) % NUM_ITEMS for step in range(20)] for start in starts]


def _sets() -> list[list[int]]:
    """Sequences of a user's own group of items, drawn in any order."""
    generator = np.random.default_rng(2)
    groups = generator.integers(NUM_ITEMS // GROUP_ITEMS, size=NUM_USERS)
    return [(group * GROUP_ITEMS + generator.integers(GROUP_ITEMS, size=20)).tolist() for group in groups]


def _train_and_evaluate(config: Config, query_batches: list[int]) -> list[dict[str, Any]]:
    workspace = Workspace(config.workspace)
    Trainer(config, workspace, {}, Communicator(), torch.device("cpu"), lambda event: None).run()
    model, store = load_trained(config, workspace, Communicator()), SequenceStore(workspace)
    counts, held_out, results = np.ones(NUM_ITEMS), np.zeros(NUM_ITEMS, bool), []
    for query_batch in query_batches:
        settings = config.evaluate.model_copy(update={"query_batch": query_batch})
        arguments = (settings, Communicator(), config.similarity, lambda done, total: None, lambda answers: None)
        results.append(evaluate(model, store, counts, None, held_out, *arguments))
    return results


def _config(folder: Path) -> Config:
    config = tiny_config(folder, max_epochs=8, validate_every=8, learning_rate=1e-2)
    model = config.model.model_copy(update={"hidden_dim": 32, "encoder": IdConfig()})
    shows = {"cutoffs": (1, 10, 20), "exclude_seen": False, "shuffle_histories": True}
    return config.model_copy(update={"model": model, "evaluate": config.evaluate.model_copy(update=shows)})


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("sequences", "metric", "least", "most"),
    [(_markov_chain(), "ndcg@1", 0.5, 1.0), (_sets(), "ndcg@10", -0.05, 0.05)],
    ids=["a Markov chain", "sets"],
)
def test_what_is_lost_is_what_order_gives(
    tmp_path: Path, sequences: list[list[int]], metric: str, least: float, most: float
) -> None:
    tiny_workspace(tmp_path, sequences=sequences)
    results = run_ranks(2, _train_and_evaluate, _config(tmp_path), [5, 512])
    assert all(result == results[0][0] for own in results for result in own)  # of ranks, and of batches
    found = results[0][0]
    ordered, unordered = found["overall"][metric], found["shuffled_histories"]["overall"][metric]
    assert ordered > 0.4
    assert least < 1 - unordered / ordered < most


def test_nothing_is_shuffled_unless_asked(tmp_path: Path) -> None:
    assert "shuffle_histories" not in tiny_config(tmp_path).evaluate.result_settings()
    assert _config(tmp_path).evaluate.result_settings()["shuffle_histories"] is True
