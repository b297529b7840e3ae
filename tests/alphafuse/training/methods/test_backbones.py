"""Every backbone through the training engine: equal on 1, 2 and 3 ranks, and able to learn a planted pattern."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import NUM_ITEMS, NUM_USERS, tiny_config, tiny_workspace

from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.encoders.settings import IdConfig
from alphafuse.storage.workspace import Workspace
from alphafuse.training.loop import Trainer

STEPS = 3
DIFFUSION = {"name": "diffusion", "similarity": "dot"}
DREAMREC = {
    "name": "dreamrec",
    "dropout": 0.0,
    "timesteps": 50,
    "beta_range": [0.002, 0.4],
    "sampling_stride": 10,
    "condition_dropout": 0.3,
}


def _trainer(config: Config) -> Trainer:
    return Trainer(config, Workspace(config.workspace), {}, Communicator(), torch.device("cpu"), [].append)


def _run_steps(config: Config) -> tuple[list[float], dict[str, torch.Tensor], torch.Tensor, dict[str, float]]:
    """Losses of the first steps (this rank's shares), dense state, this rank's rows, and validation metrics."""
    trainer, losses = _trainer(config), []
    for plan in itertools.islice(trainer.plans(), STEPS):
        losses.append(float(trainer.training_step(plan)))
    return losses, trainer.engine.state(), trainer.table.trainable, trainer._validate()


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gru4rec": ({"name": "gru4rec", "dropout": 0.0, "state_dim": 5}, {}),
    "ligr": ({"name": "ligr", "dropout": 0.0}, {}),
    "hstu": ({"name": "hstu", "dropout": 0.0}, {}),
    "dreamrec": (DREAMREC, {"loss": DIFFUSION}),
    "dreamrec, last position": (DREAMREC, {"loss": DIFFUSION, "positions": "last"}),
    "dreamrec, accumulated": (DREAMREC, {"loss": DIFFUSION, "accumulation": 2}),
    "dreamrec, negatives named": (DREAMREC, {"loss": {**DIFFUSION, "negatives": "shard_local"}}),
}


@pytest.mark.distributed
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_are_equal_on_any_number_of_ranks(tmp_path: Path, variant: str) -> None:
    backbone, train = VARIANTS[variant]
    config = tiny_config(tmp_path, backbone, **train)
    tiny_workspace(tmp_path)
    ((losses, dense, rows, metrics),) = run_ranks(1, _run_steps, config)
    for world_size in (2, 3):
        results = run_ranks(world_size, _run_steps, config)
        assert np.sum([own for own, *_ in results], axis=0) == pytest.approx(losses, abs=1e-5)
        torch.testing.assert_close(torch.cat([own for _, _, own, _ in results]), rows, rtol=0, atol=1e-5)
        for _, state, _, measured in results:
            assert measured == pytest.approx(metrics)
            for name, value in dense.items():
                torch.testing.assert_close(state[name], value, rtol=0, atol=1e-5)


def _planted() -> list[list[int]]:
    """Sequences in which every item has one successor."""
    starts = np.random.default_rng(2).integers(NUM_ITEMS, size=NUM_USERS)
    return [[(int(start) + 7 * step) % NUM_ITEMS for step in range(20)] for start in starts]


def _learn(config: Config) -> float:
    return _trainer(config).run()["history"][-1]["validation"]["hr@1"]


LEARNING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sasrec": ({"name": "sasrec", "dropout": 0.0}, {}),
    "gru4rec": ({"name": "gru4rec", "dropout": 0.0}, {}),
    "ligr": ({"name": "ligr", "dropout": 0.0}, {}),
    "hstu": ({"name": "hstu", "dropout": 0.0, "num_layers": 1}, {}),
    "dreamrec": ({**DREAMREC, "condition_dropout": 0.1, "guidance": 1.0}, {"loss": DIFFUSION}),
}


def _learning_config(folder: Path, backbone: str) -> Config:
    section, train = LEARNING[backbone]
    settings = {"max_epochs": 8, "validate_every": 8, "learning_rate": 1e-2, "monitor": "hr@1", **train}
    config = tiny_config(folder, section, **settings)
    model = config.model.model_copy(update={"hidden_dim": 32, "encoder": IdConfig()})
    evaluate = config.evaluate.model_copy(update={"exclude_seen": False})
    return config.model_copy(update={"model": model, "evaluate": evaluate})


@pytest.mark.distributed
@pytest.mark.parametrize("backbone", LEARNING)
def test_a_planted_successor_is_learnt(tmp_path: Path, backbone: str) -> None:
    tiny_workspace(tmp_path, sequences=_planted())
    assert run_ranks(1, _learn, _learning_config(tmp_path, backbone))[0] > 0.9
