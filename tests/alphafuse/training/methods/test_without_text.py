"""Items without a text are IDs: they begin like the rows of IDs, and learn like other items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import NUM_ITEMS, hold_out, tiny_config, tiny_features, tiny_workspace

from alphafuse.config import Config, parse_config
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import ignore
from alphafuse.items.table_building import build_table
from alphafuse.storage.workspace import Workspace
from alphafuse.training.loop import Trainer
from alphafuse.training.objectives.objective_building import build_objective

WITHOUT_TEXT = [4, 11, 29]
ENCODERS: list[dict[str, Any]] = [
    {"name": "alphafuse"},
    {"name": "alphafuse", "fusion": "replace"},
    {"name": "alphafuse", "id_space": "euclidean"},
    {"name": "llminit"},
    {"name": "llm_esr"},
]


def _config(folder: Path, encoder: dict[str, Any]) -> Config:
    tree = tiny_config(folder).model_dump()
    tree["model"]["encoder"] = encoder
    return parse_config(tree)


def _largest_gradient(config: Config) -> float:
    """The largest norm of the table's gradient in the steps of an epoch."""
    trainer = Trainer(config, Workspace(config.workspace), {}, Communicator(), torch.device("cpu"), ignore)
    norms = []
    for plan in trainer.plans():
        trainer.training_step(plan)
        norms.append(float(trainer._phase.step.table_gradient_square.sqrt()))
    return max(norms)


@pytest.mark.distributed
@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_their_gradients_are_of_the_usual_size(tmp_path: Path, encoder: dict[str, Any]) -> None:
    config = _config(tmp_path, encoder)
    tiny_workspace(tmp_path, without_text=WITHOUT_TEXT)
    assert run_ranks(1, _largest_gradient, config)[0] < 100


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_only_they_begin_as_ids(tmp_path: Path, encoder: dict[str, Any]) -> None:
    config = _config(tmp_path, encoder)
    workspace = tiny_workspace(tmp_path, without_text=WITHOUT_TEXT)
    hold_out(workspace, np.arange(NUM_ITEMS) == 11)
    objective = build_objective(config, workspace, Communicator())
    rows = build_table(config, workspace, objective.encoder, Communicator(), torch.device("cpu")).trainable
    of_text = np.zeros(rows.shape, np.float32) if encoder["name"] == "alphafuse" else tiny_features()
    begun = [item for item in WITHOUT_TEXT if item != 11]  # item 11 is held out
    of_text[WITHOUT_TEXT] = 0
    others = np.setdiff1d(np.arange(NUM_ITEMS), begun)
    assert np.array_equal(rows[others].numpy(), of_text[others])
    drawn = np.random.default_rng([config.seed, 0]).standard_normal((4096, rows.shape[1]), dtype=np.float32)
    assert np.array_equal(rows[begun].numpy(), drawn[begun])
