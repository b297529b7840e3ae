"""Held-out items: training knows nothing of them, and afterwards only their texts are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces import tiny_workspace
from support.workspaces.tiny_workspace import NUM_ITEMS, hold_out, tiny_config, tiny_features, tiny_sequences

from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import ignore
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from alphafuse.training.loop import Trainer

HELD_OUT = np.arange(NUM_ITEMS) % 5 == 2


def _hold_out(folder: Path) -> None:
    """A workspace whose users never meet a held-out item."""
    sequences = [[item + HELD_OUT[item] for item in sequence] for sequence in tiny_sequences()]
    hold_out(tiny_workspace.tiny_workspace(folder, sequences=sequences), HELD_OUT)


def _train(config: Config) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Train; returns item vectors of all ranks, and the dense weights."""
    communicator, workspace = Communicator(), Workspace(config.workspace)
    trainer = Trainer(config, workspace, {"made by": "hand"}, communicator, torch.device("cpu"), ignore)
    trainer.run()
    vectors = load_trained(config, workspace, communicator).item_vectors()
    return communicator.all_gather_rows(vectors)[0], trainer.engine.state()


LOSSES: list[dict[str, Any]] = [
    {"name": "softmax"},
    {"name": "gbce", "negatives": "uniform", "num_negatives": 6},
    {"name": "infonce", "negatives": "uniform", "num_negatives": 6},
    {"name": "sampled_softmax", "negatives": "shared", "num_negatives": 6},
    {"name": "sampled_softmax", "negatives": "shard_local", "num_negatives": 6},
    {"name": "sampled_softmax", "negatives": "in_batch", "num_negatives": 6},
]


@pytest.mark.distributed
@pytest.mark.parametrize(("world_size", "loss"), [(1, loss) for loss in LOSSES] + [(2, LOSSES[0]), (2, LOSSES[4])])
def test_training_knows_nothing_of_held_out_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world_size: int, loss: dict[str, Any]
) -> None:
    """If held-out items have other texts, their own vectors change, and nothing else."""
    features, results = tiny_features(), []
    for name, factor in (("one", 1.0), ("other", -3.0)):
        texts = np.where(HELD_OUT[:, None], np.float32(factor) * features, features)
        monkeypatch.setattr(tiny_workspace, "tiny_features", lambda texts=texts: texts)
        _hold_out(tmp_path / name)
        config = tiny_config(tmp_path / name, loss=loss, max_epochs=1)  # validations rank held-out items, too
        results.append(run_ranks(world_size, _train, config)[0])
        assert torch.equal(results[-1][0][HELD_OUT], torch.from_numpy(texts[HELD_OUT]))
    (one, weights), (other, same_weights) = results
    assert torch.equal(one[~HELD_OUT], other[~HELD_OUT])
    assert (one[~HELD_OUT] != torch.from_numpy(features[~HELD_OUT])).any(dim=1).sum() > (~HELD_OUT).sum() / 2
    assert all(torch.equal(weight, same_weights[name]) for name, weight in weights.items())
