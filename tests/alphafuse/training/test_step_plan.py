"""Plans of steps: they are made ahead in a thread, whose errors reach the training, and move in one piece."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import tiny_config, tiny_workspace

from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.host_arrays import to_device
from alphafuse.events import ignore
from alphafuse.storage.workspace import Workspace
from alphafuse.training.loop import Trainer
from alphafuse.training.objectives.step_input import PADDING, equal_pairs, plan_input


@pytest.mark.parametrize(("ones", "others"), [([3, 1, 7], [7, 3, 3, 9]), ([], [1]), ([2], []), ([5, 5], [5, 5])])
def test_pairs_of_equal_numbers(ones: list[int], others: list[int]) -> None:
    rows, columns = equal_pairs(np.array(ones, np.int64), np.array(others, np.int64))
    expected = [(row, column) for row, one in enumerate(ones) for column, other in enumerate(others) if one == other]
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == expected


@pytest.mark.parametrize("negatives", [[4, 9, 4], [[9, 4], [1, 2], [0, 8]]])
def test_targets_their_places_and_own_negatives(negatives: list[Any]) -> None:
    histories = np.array([[5, 6], [7, PADDING]])
    targets = np.array([[4, 2], [8, PADDING]])
    given, items = plan_input(histories, targets, np.array(negatives), 0.0, None, one_each=False)
    assert items.tolist() == [5, 6, 7, PADDING, 4, 2, 8, *np.ravel(negatives)]
    assert given.predicted.places.tolist() == [0, 1, 2]
    assert given.padding.tolist() == [[False, False], [False, True]]
    assert given.own.tolist() == ([0, 2] if np.ndim(negatives) == 1 else [1, 3, 5])


@dataclass(frozen=True)
class _Nested:
    number: torch.Tensor
    parts: list[Any]
    name: str


def test_a_plan_moves_as_a_whole() -> None:
    inner = _Nested(torch.tensor(1.5), [], "inner")
    plan = _Nested(torch.arange(3), [(torch.zeros(0, 2), torch.tensor([[True]])), inner, None], "outer")
    moved = to_device(plan, torch.device("meta"))
    (empty, mask), again, nothing = moved.parts
    tensors = (moved.number, empty, mask, again.number)
    shapes = [(3,), (0, 2), (1, 1), ()]
    assert [(t.device.type, tuple(t.shape)) for t in tensors] == [("meta", shape) for shape in shapes]
    assert [t.dtype for t in tensors] == [torch.int64, torch.float32, torch.bool, torch.float32]
    assert (moved.name, again.name, nothing) == ("outer", "inner", None)


def _train(config: Config, broken: int | None) -> tuple[str, int, list[int]]:
    """Train, with a planner that fails at step `broken`; returns the error, the number of steps taken, and the numbers
    of the steps that were planned. All threads must be over."""
    trainer = Trainer(config, Workspace(config.workspace), {}, Communicator(), torch.device("cpu"), ignore)
    planner, planned, before = trainer._phase.planner, [], set(threading.enumerate())
    draw = planner._sampler.draw

    def noted(batch: Any, step: int) -> Any:
        planned.append(step)
        if step == broken:
            raise ValueError(f"no negatives for step {step}")
        return draw(batch, step)

    planner._sampler.draw = noted  # type: ignore[method-assign]
    error = ""
    try:
        trainer.run()
    except ValueError as failure:
        error = str(failure)
    assert set(threading.enumerate()) <= before
    return error, trainer.state.step, planned


@pytest.mark.distributed
def test_an_error_of_the_planning_is_one_of_the_training(tmp_path: Path) -> None:
    tiny_workspace(tmp_path)
    for error, steps, planned in run_ranks(2, _train, tiny_config(tmp_path), 2):
        assert (error, steps, planned) == ("no negatives for step 2", 2, [0, 1, 2])


@pytest.mark.distributed
def test_no_step_is_planned_that_is_not_taken(tmp_path: Path) -> None:
    tiny_workspace(tmp_path)
    for error, steps, planned in run_ranks(2, _train, tiny_config(tmp_path, max_steps=2), None):
        assert (error, steps, planned) == ("", 2, [0, 1])
