"""The data choose settings that a configuration leaves open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.workspaces.tiny_workspace import tiny_config, tiny_workspace
from torch import nn

from alphafuse.distributed.communicator import Communicator
from alphafuse.recommenders.base import chosen_dropout
from alphafuse.storage.workspace import Workspace
from alphafuse.training.objectives.objective_building import build_objective


@pytest.mark.parametrize(
    ("num_targets", "expected"),
    [(0, 0.3), (15_000, 0.3), (122_474, 0.2), (10**6, 0.1), (10**9, 0.1)],  # 122,474: the geometric mean
)
def test_fewer_targets_are_trained_with_more_dropout(num_targets: int, expected: float) -> None:
    assert chosen_dropout(num_targets) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "hstu"])
@pytest.mark.parametrize(("given", "used"), [(None, 0.1), (0.0, 0.0), (0.25, 0.25)])
def test_dropout_that_is_left_open_follows_the_training_targets(
    tmp_path: Path, name: str, given: float | None, used: float
) -> None:
    workspace, backbone = tiny_workspace(tmp_path), dict[str, Any](name=name, dropout=given)
    sequences = workspace.artifact("sequences")
    (tmp_path / "sequences" / "manifest.json").unlink()
    sequences.commit({"made by": "hand"}, {"targets": {"train": 2_000_000}})
    objective = build_objective(tiny_config(tmp_path, backbone), Workspace(str(tmp_path)), Communicator())
    assert {module.p for module in objective.modules() if isinstance(module, nn.Dropout)} == {used}
