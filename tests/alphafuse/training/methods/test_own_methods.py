"""An encoder and a backbone of a user's own package: equal on any number of ranks, resumed, and loaded again."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.own_package import OWN_MODEL, write_own_package
from support.workspaces.tiny_workspace import EMBEDDING_DIM, HIDDEN_DIM, NUM_ITEMS, tiny_config, tiny_workspace

from alphafuse.config import parse_config
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import TrainingProgress
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from alphafuse.training.loop import Trainer


class Killed(Exception):
    pass


def _tree(folder: Path) -> dict[str, Any]:
    """The configuration as plain values: only processes with the package on their path can read its settings."""
    tree = tiny_config(folder, checkpoint_steps=2).model_dump(mode="json")
    tree["model"] |= OWN_MODEL
    return tree


def _train(packages: Path, tree: dict[str, Any], kill_at: int | None) -> dict[int, float]:
    """Train to the end or into step `kill_at`: rank 0's losses by step."""
    sys.path.insert(0, str(packages))
    events: list[Any] = []
    config = parse_config(tree)
    trainer = Trainer(config, Workspace(config.workspace), {}, Communicator(), torch.device("cpu"), events.append)
    take_step = trainer.training_step

    def step(plan: Any) -> Any:
        if plan.number == kill_at:
            raise Killed
        return take_step(plan)

    trainer.training_step = step  # type: ignore[method-assign]
    with contextlib.suppress(Killed):
        trainer.run()
    return {event.done: event.loss for event in events if isinstance(event, TrainingProgress)}


def _load(packages: Path, tree: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Size]]:
    """All item vectors, the states behind two histories, and the shapes of the dense weights."""
    sys.path.insert(0, str(packages))
    config = parse_config(tree)
    model = load_trained(config, Workspace(config.workspace), Communicator())
    weights = {name: value.shape for name, value in model._objective.state_dict().items()}
    return model.item_vectors(), model.hidden_states(torch.tensor([[3, 1, 4, -1], [5, -1, -1, -1]])), weights


@pytest.mark.distributed
def test_killed_on_two_ranks_and_resumed_on_three_as_undisturbed_on_one(tmp_path: Path) -> None:
    write_own_package(tmp_path)
    for name in ("whole", "broken"):
        tiny_workspace(tmp_path / name)
    whole, broken = _tree(tmp_path / "whole"), _tree(tmp_path / "broken")
    expected = run_ranks(1, _train, tmp_path, whole, None)[0]
    before = run_ranks(2, _train, tmp_path, broken, 5)[0]
    after = run_ranks(3, _train, tmp_path, broken, None)[0]
    assert sorted(before) == [1, 2, 3, 4, 5]
    assert min(after) == 5  # the checkpoint is that of step 4
    assert before | after == pytest.approx(expected, abs=1e-5)

    (vectors, states, weights), (vectors_again, states_again, _) = (
        run_ranks(1, _load, tmp_path, tree)[0] for tree in (whole, broken)
    )
    assert weights == {
        "encoder.text.0.weight": (HIDDEN_DIM, EMBEDDING_DIM),
        "encoder.text.0.bias": (HIDDEN_DIM,),
        "backbone.output.weight": (HIDDEN_DIM, HIDDEN_DIM),
        "backbone.output.bias": (HIDDEN_DIM,),
    }
    assert vectors.shape == (NUM_ITEMS, HIDDEN_DIM)
    torch.testing.assert_close(vectors_again, vectors, rtol=0, atol=1e-4)
    torch.testing.assert_close(states_again, states, rtol=0, atol=1e-4)
