"""Reports of the ranks about their steps, against counts made from their batches by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import HIDDEN_DIM, NULL_DIM, NUM_ITEMS, tiny_config, tiny_workspace

from alphafuse.config import Config
from alphafuse.data.sampling.negative_draws import shared_negatives
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import CheckpointWritten, StepMeans, StepTaken, TrainingProgress
from alphafuse.storage.workspace import Workspace
from alphafuse.training.loop import Trainer

LOG_STEPS = 2
NUM_NEGATIVES = 6


def _train(config: Config) -> tuple[list[Any], list[dict[str, set[int]]], list[int]]:
    """Train; returns the events of this rank and, for each step, the items that it looks up and its samples."""
    events: list[Any] = []
    communicator = Communicator()
    trainer = Trainer(config, Workspace(config.workspace), {}, communicator, torch.device("cpu"), events.append)
    wanted, samples = [], []
    for epoch in range(config.train.max_epochs):
        for batches in trainer._phases[0].order.epoch(epoch, 0, communicator.rank, communicator.world_size):
            (batch,) = batches
            step = len(wanted)
            drawn = shared_negatives(config.seed, step, NUM_NEGATIVES, NUM_ITEMS)
            wanted.append(np.concatenate([batch.histories.ravel(), batch.targets.ravel(), drawn]))
            samples.append(len(batch.histories))
    trainer.run()
    return events, wanted, samples


@pytest.fixture(scope="module", params=[1, 2])
def reported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[Any]]:
    folder = tmp_path_factory.mktemp("reporter")
    tiny_workspace(folder)
    loss = {"name": "infonce", "negatives": "shared", "num_negatives": NUM_NEGATIVES}
    config = tiny_config(folder, log_steps=LOG_STEPS, checkpoint_steps=3, loss=loss, schedule={"warmup_steps": 3})
    return request.param, run_ranks(request.param, _train, config)


def _of(events: list[Any], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.distributed
def test_counts_are_those_of_the_batches(reported: tuple[int, list[Any]]) -> None:
    world_size, ranks = reported
    cuts = [rank * NUM_ITEMS // world_size for rank in range(world_size + 1)]
    for rank, (events, wanted, samples) in enumerate(ranks):
        steps = _of(events, StepTaken)
        assert len(steps) == len(wanted) > 4
        for number, (event, items) in enumerate(zip(steps, wanted, strict=True)):
            asked = [np.unique(other[number][other[number] >= 0]) for _, other, _ in ranks]
            own = [rows[(rows >= cuts[rank]) & (rows < cuts[rank + 1])] for rows in asked]
            sent = len(asked[rank]) - len(own[rank])
            answered = sum(len(rows) for other, rows in enumerate(own) if other != rank)
            assert event.rank == rank
            assert event.step == number + 1
            assert event.samples == samples[number]
            assert event.rows_requested == (items >= 0).sum()
            assert event.rows_distinct == len(asked[rank])
            assert event.rows_served == sum(map(len, own))
            assert event.rows_touched == len(np.unique(np.concatenate(own)))
            # Ids and gradients go to the owners of rows, rows to ranks that asked for them, the number of targets to
            # all ranks.
            rows_sent = sent * (8 + 4 * NULL_DIM) + answered * 4 * (HIDDEN_DIM + NULL_DIM)
            assert event.bytes_sent == rows_sent + 8 * (world_size > 1)


@pytest.mark.distributed
def test_spans_fill_the_step(reported: tuple[int, list[Any]]) -> None:
    _, ranks = reported
    for events, _, _ in ranks:
        for step in _of(events, StepTaken):
            spans = step.span_seconds()
            assert all(seconds > 0 for span, seconds in spans.items() if span != "exchange")
            assert 0.5 * step.seconds < sum(spans.values()) <= step.seconds * (1 + 1e-9)


@pytest.mark.distributed
def test_means_now_and_then(reported: tuple[int, list[Any]]) -> None:
    world_size, ranks = reported
    for rank, (events, _, samples) in enumerate(ranks):
        steps, workers = _of(events, StepTaken), _of(events, StepMeans)
        assert [event.step for event in workers] == [2 * n for n in range(1, len(steps) // 2 + 1)]
        for number, event in enumerate(workers):
            two = slice(2 * number, 2 * number + 2)
            assert (event.rank, event.world_size, event.steps) == (rank, world_size, 2)
            for name in ("seconds", "forward_seconds", "rows_served", "bytes_sent"):
                assert getattr(event, name) == pytest.approx(np.mean([getattr(step, name) for step in steps[two]]))
            seconds = sum(step.seconds for step in steps[two])
            assert event.samples_per_second == pytest.approx(sum(samples[two]) / seconds)
            assert event.memory_bytes > 2**20
            assert event.device_memory_bytes is None


@pytest.mark.distributed
def test_rank_0_reports_progress_and_checkpoints(reported: tuple[int, list[Any]]) -> None:
    _, ranks = reported
    for events, _, _ in ranks[1:]:
        assert {type(event) for event in events} == {StepTaken, StepMeans}
    events, wanted, _ = ranks[0]
    progress = _of(events, TrainingProgress)
    assert [event.done for event in progress] == [2 * n for n in range(1, len(wanted) // 2 + 1)]
    for event in progress:
        assert event.total == len(wanted)
        factor = min(1.0, event.done / 3)
        assert event.learning_rate == pytest.approx(1e-2 * factor)
        for name in ("loss", "gradient_norm", "table_gradient_norm"):
            assert math.isfinite(getattr(event, name))
            assert getattr(event, name) > 0
    checkpoints = _of(events, CheckpointWritten)
    assert 3 in {event.step for event in checkpoints}
    assert all(event.bytes > 0 and event.seconds > 0 for event in checkpoints)


def _norms(config: Config) -> list[tuple[float, float]]:
    events: list[Any] = []
    Trainer(config, Workspace(config.workspace), {}, Communicator(), torch.device("cpu"), events.append).run()
    return [(event.gradient_norm, event.table_gradient_norm) for event in _of(events, TrainingProgress)]


@pytest.mark.distributed
def test_norms_are_those_of_the_whole_gradient(tmp_path: Path) -> None:
    """Norms are equal on any number of ranks, with and without sharding and clipping (by a norm never reached)."""
    found = []
    for number, (world_size, settings) in enumerate(
        [(1, {}), (2, {}), (2, {"max_grad_norm": 1e6}), (2, {"deepspeed": {"zero_stage": 1}, "max_grad_norm": 1e6})]
    ):
        tiny_workspace(tmp_path / str(number))
        found.append(run_ranks(world_size, _norms, tiny_config(tmp_path / str(number), max_epochs=1, **settings))[0])
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-4)
