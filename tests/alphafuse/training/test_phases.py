"""A training in two phases: the beginning of the second, its settings, and that it resumes like any other."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import tiny_config, tiny_workspace

from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import TrainingProgress
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from alphafuse.training.loop import Trainer

FINISH = {"batch_size": 5, "rate_factor": 0.1, "max_epochs": 2, "patience": 3}


class Killed(Exception):
    pass


def _train(config: Config, kill_at: int | None = None) -> dict[str, Any]:
    """Train to the end or into step `kill_at`: the losses by step, the history, and what the second phase began with:
    this rank's rows, the most targets that a sample has, and the samples of its batches."""
    events: list[Any] = []
    trainer = Trainer(config, Workspace(config.workspace), {}, Communicator(), torch.device("cpu"), events.append)
    take_step, seen = trainer.training_step, dict[str, Any](batches=[])

    def step(plan: Any) -> Any:
        if plan.number == kill_at:
            raise Killed
        if trainer.state.phase == 1:
            seen.setdefault("rows", trainer.table.trainable.clone())
            for micro in plan.micro_batches:
                samples, length = micro.given.padding.shape
                targets = np.bincount(micro.given.predicted.places // length, minlength=samples)
                seen["batches"].append((samples, targets.max()))
        return take_step(plan)

    trainer.training_step = step  # type: ignore[method-assign]
    with contextlib.suppress(Killed):
        seen |= trainer.run()
    progress = [event for event in events if isinstance(event, TrainingProgress)]
    seen["losses"] = {event.done: event.loss for event in progress}
    seen["totals"] = [event.total for event in progress]
    return seen


def _config(folder: Path, **train: Any) -> Config:
    tiny_workspace(folder)
    return tiny_config(folder, **{"max_epochs": 3, "table_learning_rate": 0.3, "learning_rate": 0.1, **train})


@pytest.mark.distributed
def test_the_finish_goes_on_from_the_best_weights_with_samples_and_rates_of_its_own(tmp_path: Path) -> None:
    first = run_ranks(1, _train, _config(tmp_path / "first"))[0]
    both = run_ranks(1, _train, _config(tmp_path / "both", finish=FINISH))[0]
    assert first["best"]["epoch"] < 3  # so that the last weights are not the best
    best = load_trained(_config(tmp_path / "again"), Workspace(str(tmp_path / "first")), Communicator())
    assert torch.equal(both["rows"], best._table.trainable)
    assert {most for _, most in both["batches"]} == {1}
    assert max(samples for samples, _ in both["batches"]) == 5
    rates = [entry["learning_rate"] for entry in both["history"]]
    assert rates == pytest.approx([0.1] * 3 + [0.01] * (len(rates) - 3))
    assert [entry["epoch"] for entry in both["history"]] == list(range(1, len(rates) + 1))
    assert both["history"][2]["validation"] == first["history"][2]["validation"]
    steps = [entry["step"] for entry in both["history"]]
    assert both["totals"][-1] == steps[2] + 2 * (steps[3] - steps[2])
    values = [entry["validation"]["ndcg@20"] for entry in both["history"]]
    assert both["best"]["value"] == max(values)
    assert both["best"]["epoch"] == 1 + values.index(max(values))
    assert first["stopped"] == "max_epochs (3) reached"
    assert both["stopped"] == "max_epochs (2) reached"


@pytest.mark.distributed
def test_the_most_steps_end_a_training_in_any_phase(tmp_path: Path) -> None:
    first = run_ranks(1, _train, _config(tmp_path / "first", finish=FINISH, max_steps=4))[0]
    assert (first["steps"], first["stopped"], first["batches"]) == (4, "max_steps (4) reached", [])


@pytest.mark.distributed
@pytest.mark.parametrize("kill", ["at its first step", "behind a checkpoint"])
def test_a_killed_finish_repeats_the_undisturbed_one_on_other_ranks(tmp_path: Path, kill: str) -> None:
    whole = run_ranks(1, _train, _config(tmp_path / "whole", finish=FINISH, checkpoint_steps=2))[0]
    began = whole["history"][2]["step"]
    kill_at = began if kill == "at its first step" else began + 5
    broken = _config(tmp_path / "broken", finish=FINISH, checkpoint_steps=2)
    run_ranks(2, _train, broken, kill_at)
    after = run_ranks(2, _train, broken)[0]
    assert min(after["losses"]) <= kill_at + 1
    expected = {step: loss for step, loss in whole["losses"].items() if step in after["losses"]}
    assert after["losses"] == pytest.approx(expected, abs=1e-4)
    assert after["best"]["step"] == whole["best"]["step"]
    assert [entry["epoch"] for entry in after["history"]] == [entry["epoch"] for entry in whole["history"]]
