"""Every encoder on the whole path: trained on one and on two ranks, and what training writes loads again."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from multi_process import run_ranks
from tiny_workspace import EMBEDDING_DIM, HIDDEN_DIM, tiny_config, tiny_workspace

from alphafuse.collectives import Communicator
from alphafuse.config import Config, parse_config
from alphafuse.training.loop import Trainer
from alphafuse.training.model import load_trained
from alphafuse.workspace import Workspace

STEPS = 3
INPUTS = {"test": "encoders"}

ENCODERS: dict[str, dict[str, Any]] = {
    "morec": {"encoder": {"name": "morec"}},
    "whitenrec": {"encoder": {"name": "whitenrec"}, "hidden_dim": 6},
    "idreamrec": {"encoder": {"name": "idreamrec"}},
    "unisrec": {"encoder": {"name": "unisrec", "dropout": 0.0}},
    "unisrec, dropout": {"encoder": {"name": "unisrec", "dropout": 0.2}},
    "llminit": {"encoder": {"name": "llminit"}},
    "rlmrec_con": {"encoder": {"name": "rlmrec_con"}},
    "rlmrec_gen": {"encoder": {"name": "rlmrec_gen", "mask_ratio": 0.0}},
    "llm_esr": {"encoder": {"name": "llm_esr"}},
    "euclidean IDs": {"encoder": {"id_space": "euclidean", "initialization": "normal"}},
    "euclidean injection": {"encoder": {"injection_space": "euclidean"}, "hidden_dim": EMBEDDING_DIM},
    "all euclidean": {
        "encoder": {"id_space": "euclidean", "injection_space": "euclidean", "fusion": "replace"},
        "hidden_dim": EMBEDDING_DIM,
    },
}
LOSSES: dict[str, dict[str, Any]] = {
    "shared": {"num_negatives": 6},
    "uniform": {"name": "infonce", "negatives": "uniform", "num_negatives": 6},
    "softmax": {"name": "softmax"},
}
# The losses whose rows travel and the one whose rows do not, each with methods of every kind.
CASES = [(encoder, "shared") for encoder in ENCODERS if "dropout" not in encoder] + [
    ("rlmrec_con", "uniform"),
    ("unisrec", "softmax"),
    ("idreamrec", "softmax"),
]


def _config(folder: Path, encoder: str, loss: str) -> Config:
    tree = tiny_config(folder, loss=LOSSES[loss], max_epochs=1).model_dump(mode="json")
    tree["decompose"]["directions"] = HIDDEN_DIM
    tree["model"] |= ENCODERS[encoder]
    return parse_config(tree)


def _trainer(config: Config) -> Trainer:
    arguments = (config, Workspace(config.workspace), INPUTS, Communicator(), torch.device("cpu"))
    return Trainer(*arguments, lambda event: None)


def _run_steps(configs: list[Config]) -> list[tuple[list[float], dict[str, torch.Tensor], torch.Tensor]]:
    """For each configuration: losses of the first steps (this rank's shares), dense state and this rank's rows."""
    results = []
    for config in configs:
        trainer, communicator = _trainer(config), Communicator()
        losses = []
        with patch("torch.randn_like", torch.zeros_like):  # the noise of UniSRec's gates
            for batches in list(trainer.order.epoch(0, 0, communicator.rank, communicator.world_size))[:STEPS]:
                losses.append(float(trainer.training_step(batches)))
                trainer.progress.step += 1
        results.append((losses, trainer.engine.state(), trainer.table.trainable.clone()))
    return results


@pytest.mark.distributed
def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    tiny_workspace(tmp_path)
    configs = [_config(tmp_path, *case) for case in CASES]
    alone, *_ = run_ranks(1, _run_steps, configs)
    both = run_ranks(2, _run_steps, configs)
    for case, (losses, dense, rows), *ranks in zip(CASES, alone, *both, strict=True):
        close = functools.partial(_assert_close, " with ".join(case))
        close("losses", torch.tensor([own for own, _, _ in ranks]).sum(dim=0), torch.tensor(losses))
        close("rows", torch.cat([own for _, _, own in ranks]), rows)
        for _, state, _ in ranks:
            for name, value in dense.items():
                close(name, state[name], value)


def _assert_close(case: str, what: str, actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5, msg=lambda text: f"{case}, {what}: {text}")


def _train(configs: list[Config]) -> list[torch.Tensor]:
    """Train to the end; the item vectors of this rank."""
    vectors = []
    for config in configs:
        trainer = _trainer(config)
        trainer.run()
        with torch.no_grad():
            vectors.append(trainer.engine.module.encoder.eval()(trainer.table.features, trainer.table.trainable))
    return vectors


@pytest.mark.distributed
def test_what_two_ranks_wrote_loads_on_one(tmp_path: Path) -> None:
    """Also where items have no trained columns; dropout and noise are on, and do not reach the item vectors."""
    names = ["idreamrec", "unisrec, dropout", "llm_esr", "all euclidean"]
    configs = [_config(tmp_path / name, name, "shared") for name in names]
    for name in names:
        tiny_workspace(tmp_path / name)
    for name, config, *parts in zip(names, configs, *run_ranks(2, _train, configs), strict=True):
        model = load_trained(config, Workspace(config.workspace), Communicator())
        vectors = torch.cat(parts)
        _assert_close(name, "item vectors", model.item_vectors(), vectors)
        assert model.hidden_states(torch.tensor([[3, 1, 4, -1], [5, -1, -1, -1]])).shape == (2, vectors.shape[1])
