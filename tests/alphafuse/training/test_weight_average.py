"""Averages of weights against sums over the weights of all steps in float64, and where they are used."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import tiny_config, tiny_workspace

from alphafuse.config import Config
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.evaluation.evaluator import validation_metrics
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from alphafuse.training.loop import Trainer
from alphafuse.training.weight_average import WeightAverage

SHARE = 0.3
STEPS = 6


class _Weights:
    """A table of one number and an engine of one weight, which both are what they are set to."""

    def __init__(self) -> None:
        self.trainable = torch.zeros(1, 1)

    def full_weights(self) -> list[tuple[str, torch.Tensor]]:
        return [("weight", self.trainable[0])]


def _averaged(share: float, values: np.ndarray) -> tuple[float, float, int]:
    """The averages of the row and of the weight after steps in which both had these values, and the number of
    snapshots."""
    weights: Any = _Weights()
    average, taken = WeightAverage(share, weights, weights), 0
    for step, value in enumerate(values, start=1):
        weights.trainable.fill_(float(value))
        if average.is_due(step):
            average.update(step, weights, weights)
            taken += 1
    average.update(len(values), weights, weights)
    return float(average.rows), float(average.dense["weight"]), taken


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_the_mean_age_is_a_share_of_the_training(share: float) -> None:
    """The average of the step numbers t · i / t is t times one minus the share of the age: 1 / (1 + share)."""
    row, weight, taken = _averaged(share, np.arange(1, 4001))
    assert row == weight == pytest.approx(4000 / (1 + share), rel=share / 10)
    assert taken < 4000 / 2


def test_few_steps_are_all_taken() -> None:
    """With share 1/2, step i of 4 weighs (i² − (i − 1)²) / 16: 1, 3, 5 and 7 sixteenths."""
    values = np.array([16.0, 0.0, 32.0, 16.0])
    assert _averaged(0.5, values) == (pytest.approx(1 + 10 + 7), pytest.approx(18), 4)


def _trainer(config: Config) -> Trainer:
    arguments = (config, Workspace(config.workspace), {"test": "average"}, Communicator(), torch.device("cpu"))
    return Trainer(*arguments, lambda event: None)


def _steps(config: Config) -> tuple[list[Any], list[Any]]:
    """Rows and dense weights after each step, and the averages after the last."""
    trainer, states = _trainer(config), []
    for plan in itertools.islice(trainer.plans(), STEPS):
        trainer.training_step(plan)
        states.append([trainer.table.trainable.clone(), trainer.engine.weights()])
    average = trainer._average
    assert average is not None
    return states, [average.rows, average.dense]


@pytest.mark.distributed
@pytest.mark.parametrize(("world_size", "zero_stage"), [(1, 0), (2, 0), (3, 2)])
def test_averages_are_the_weighted_sums_over_the_steps(tmp_path: Path, world_size: int, zero_stage: int) -> None:
    config = tiny_config(tmp_path, batch_size=2, averaging=SHARE, deepspeed={"zero_stage": zero_stage})
    tiny_workspace(tmp_path)
    ends = (np.arange(STEPS + 1) / STEPS) ** (1 / SHARE)
    shares = torch.from_numpy(np.diff(ends))
    for states, (rows, dense) in run_ranks(world_size, _steps, config):
        expected = sum(share * rows.double() for share, (rows, _) in zip(shares, states, strict=True))
        torch.testing.assert_close(rows.double(), expected, rtol=1e-5, atol=1e-7)
        for name, value in dense.items():
            expected = sum(share * weights[name].double() for share, (_, weights) in zip(shares, states, strict=True))
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-7)


def _train(config: Config) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of the best validation, and of the finished model on the same targets."""
    details = _trainer(config).run()
    best = next(entry for entry in details["history"] if entry["epoch"] == details["best"]["epoch"])
    model, sequences = load_trained(config, Workspace(config.workspace), Communicator()), _sequences(config)
    arguments = (config.evaluate, Communicator(), config.similarity, None, lambda done, total: None)
    return best["validation"], validation_metrics(model, sequences, "validation", *arguments)


def _sequences(config: Config) -> SequenceStore:
    return SequenceStore(Workspace(config.workspace))


@pytest.mark.distributed
@pytest.mark.parametrize("finish", [None, {"batch_size": 4, "max_epochs": 2}])
def test_the_finished_model_is_the_average_that_was_validated(tmp_path: Path, finish: dict[str, Any] | None) -> None:
    config = tiny_config(tmp_path, averaging=SHARE, max_epochs=3, finish=finish)
    tiny_workspace(tmp_path)
    for validated, measured in run_ranks(2, _train, config):
        assert measured == pytest.approx(validated)


def _validate_between_steps(config: Config) -> tuple[list[torch.Tensor], list[torch.Tensor], list[dict[str, float]]]:
    """Table and average before and after a validation; its metrics, and those with the average as the only weights."""
    trainer = _trainer(config)
    for plan in itertools.islice(trainer.plans(), STEPS):
        trainer.training_step(plan)
    average = trainer._average
    assert average is not None
    before = [trainer.table.trainable.clone(), average.rows.clone()]
    metrics = trainer._validate()
    after = [trainer.table.trainable.clone(), average.rows.clone()]
    average.adopt(trainer.table, trainer.engine)
    average.restart(trainer.table, trainer.engine)
    return before, after, [metrics, trainer._validate()]


@pytest.mark.distributed
def test_a_validation_scores_the_average_and_changes_nothing(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, batch_size=2, averaging=0.9)
    tiny_workspace(tmp_path)
    for before, after, (validated, adopted) in run_ranks(2, _validate_between_steps, config):
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
        assert not torch.equal(*before)
        assert validated == pytest.approx(adopted)
