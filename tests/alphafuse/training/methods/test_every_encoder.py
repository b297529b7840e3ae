"""Every encoder on the whole path, and with them every backbone and kind of loss: trained on one and on two ranks; what
training writes loads again."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import EMBEDDING_DIM, HIDDEN_DIM, NUM_ITEMS, tiny_config, tiny_workspace
from torch.nn import functional

from alphafuse.config import Config, parse_config
from alphafuse.data.sampling.negative_draws import shared_negatives
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.table_building import build_table
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from alphafuse.training.loop import Trainer
from alphafuse.training.objectives.objective_building import build_objective

STEPS = 3
INPUTS = {"test": "encoders"}

ENCODERS: dict[str, dict[str, Any]] = {
    "id": {"encoder": {"name": "id"}},
    "alphafuse replace": {"encoder": {"fusion": "replace", "initialization": "normal"}},
    "alphafuse trained": {"encoder": {"frozen": False}},
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
ALIGNED = ("rlmrec_con", "rlmrec_gen", "llm_esr")
LOSSES: dict[str, dict[str, Any]] = {
    "shared": {"num_negatives": 6},
    "uniform": {"name": "infonce", "negatives": "uniform", "num_negatives": 6},
    "shard-local": {"name": "infonce", "negatives": "shard_local", "num_negatives": 6},
    "softmax": {"name": "softmax", "num_negatives": 6},
    "diffusion": {"name": "diffusion", "similarity": "dot", "num_negatives": 6},
}
BACKBONES: dict[str, dict[str, Any]] = {
    "sasrec": {"name": "sasrec", "dropout": 0.0},
    "gru4rec": {"name": "gru4rec", "dropout": 0.0},
    "hstu": {"name": "hstu", "dropout": 0.0},
    "dreamrec": {"name": "dreamrec", "dropout": 0.0, "timesteps": 40, "beta_range": [0.01, 0.4], "sampling_stride": 8},
}
Case = tuple[str, str, str]
# Sampled and sharded losses, and the backbones, each with methods of every kind.
CASES: list[Case] = [(encoder, "shared", "sasrec") for encoder in ENCODERS if "dropout" not in encoder] + [
    ("rlmrec_con", "uniform", "sasrec"),
    ("rlmrec_con", "softmax", "sasrec"),
    ("unisrec", "softmax", "sasrec"),
    ("idreamrec", "softmax", "sasrec"),
    ("llm_esr", "shard-local", "sasrec"),
    ("llm_esr", "shared", "gru4rec"),
    ("llm_esr", "shared", "hstu"),
    ("llm_esr", "diffusion", "dreamrec"),
    ("rlmrec_gen", "diffusion", "dreamrec"),
    ("morec", "diffusion", "dreamrec"),
    ("unisrec", "diffusion", "dreamrec"),
    ("euclidean IDs", "diffusion", "dreamrec"),
    ("whitenrec", "shared", "gru4rec"),
]


def _config(folder: Path, encoder: str, loss: str, backbone: str, **settings: Any) -> Config:
    """The configuration of a case, with further settings of the encoder."""
    tree = tiny_config(folder, BACKBONES[backbone], loss=LOSSES[loss], max_epochs=1).model_dump(mode="json")
    tree["decompose"]["directions"] = HIDDEN_DIM
    tree["model"] |= ENCODERS[encoder]
    tree["model"]["encoder"] = tree["model"]["encoder"] | settings
    return parse_config(tree)


def _trainer(config: Config) -> Trainer:
    arguments = (config, Workspace(config.workspace), INPUTS, Communicator(), torch.device("cpu"))
    return Trainer(*arguments, lambda event: None)


def _run_steps(configs: list[Config]) -> list[tuple[list[float], dict[str, torch.Tensor], torch.Tensor]]:
    """For each configuration: losses of the first steps (this rank's shares), dense state and this rank's rows."""
    results = []
    for config in configs:
        trainer, losses = _trainer(config), []
        with patch("torch.randn_like", torch.zeros_like):  # the noise of UniSRec's gates
            for plan in itertools.islice(trainer.plans(), STEPS):
                losses.append(float(trainer.training_step(plan)))
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
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=5e-5, msg=lambda text: f"{case}, {what}: {text}")


def _first_losses(configs: list[Config]) -> list[tuple[float, np.ndarray]]:
    """For each configuration: this rank's share of the first step's loss, and its targets."""
    results = []
    for config in configs:
        trainer, communicator = _trainer(config), Communicator()
        order = trainer._phases[0].order
        (batch,) = next(iter(order.epoch(0, 0, communicator.rank, communicator.world_size)))
        loss = trainer.training_step(next(trainer.plans()))
        results.append((float(loss), batch.targets[batch.targets >= 0]))
    return results


@pytest.mark.distributed
def test_a_loss_that_looks_no_negatives_up_leaves_the_alignment_some_of_the_batch(tmp_path: Path) -> None:
    """The growth of the loss with the weight of the alignment, against InfoNCE with items drawn for the step."""
    workspace, device = tiny_workspace(tmp_path), torch.device("cpu")
    cases = [case for case in CASES if case[0] in ALIGNED and case[1] in ("softmax", "shard-local", "diffusion")]
    configs = [_config(tmp_path, *case, alignment_weight=weight) for case in cases for weight in (0.5, 1.5)]
    results = list(zip(*run_ranks(2, _first_losses, configs), strict=True))
    for case, config, lighter, heavier in zip(cases, configs[::2], results[::2], results[1::2], strict=True):
        encoder = build_objective(config, workspace, Communicator()).encoder
        table = build_table(config, workspace, encoder, Communicator(), device)
        first, second = (functional.normalize(v) for v in encoder.alignment_views(table.features, table.trainable))
        logits = first @ second.T / config.train.loss.temperature  # [items, items]
        drawn, terms = shared_negatives(config.seed, 0, 6, NUM_ITEMS), []
        for target in np.concatenate([targets for _, targets in lighter]):
            compared = [target, *drawn[drawn != target]]
            terms.append(-functional.log_softmax(logits[target, compared], dim=0)[0])
        grown = sum(loss for loss, _ in heavier) - sum(loss for loss, _ in lighter)
        _assert_close(" with ".join(case), "alignment", torch.tensor(grown), torch.stack(terms).mean().detach())


def _train(configs: list[Config]) -> list[torch.Tensor]:
    """Train to the end; returns the item vectors of this rank."""
    vectors = []
    for config in configs:
        trainer = _trainer(config)
        trainer.run()
        with torch.no_grad():
            vectors.append(trainer.engine.module.encoder.eval()(trainer.table.features, trainer.table.trainable))
    return vectors


@pytest.mark.distributed
def test_what_two_ranks_wrote_loads_on_one(tmp_path: Path) -> None:
    """Also for items without trained columns. Dropout and noise are on, and do not change the item vectors."""
    cases: list[Case] = [(name, "shared", "sasrec") for name in ("idreamrec", "unisrec, dropout", "all euclidean")]
    cases += [("llm_esr", "shared", "sasrec"), ("llm_esr", "diffusion", "dreamrec")]
    names = [" with ".join(case) for case in cases]
    configs = [_config(tmp_path / name, *case) for name, case in zip(names, cases, strict=True)]
    for name in names:
        tiny_workspace(tmp_path / name)
    for name, config, *parts in zip(names, configs, *run_ranks(2, _train, configs), strict=True):
        model = load_trained(config, Workspace(config.workspace), Communicator())
        vectors = torch.cat(parts)
        _assert_close(name, "item vectors", model.item_vectors(), vectors)
        assert model.hidden_states(torch.tensor([[3, 1, 4, -1], [5, -1, -1, -1]])).shape == (2, vectors.shape[1])
