"""A step waits for no number of the device: it runs where there are no numbers, on one rank and on one of 64."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from support.definitions.unsized_step import RATES, unsized_step
from support.workspaces.tiny_workspace import HIDDEN_DIM, tiny_config, tiny_workspace
from torch.testing._internal.distributed.fake_pg import FakeStore

from alphafuse.config import Config, parse_config

NUM_ITEMS = 1000
NEGATIVES = ("shared", "uniform", "shard_local", "in_batch")
LOSSES: dict[str, dict[str, Any]] = {
    **{f"infonce, {kind}": {"name": "infonce", "negatives": kind} for kind in NEGATIVES},
    **{f"sampled, {kind}": {"negatives": kind} for kind in NEGATIVES},
    **{f"bce, {kind}": {"name": "bce", "negatives": kind, "similarity": "dot"} for kind in ("shared", "uniform")},
    **{f"gbce, {kind}": {"name": "gbce", "negatives": kind} for kind in ("shared", "uniform")},
    "softmax": {"name": "softmax"},
    "diffusion": {"name": "diffusion", "similarity": "dot"},
}
ENCODERS: dict[str, dict[str, Any]] = {
    "alphafuse": {},
    "alphafuse, replace": {"encoder": {"fusion": "replace"}},
    "alphafuse, trained": {"encoder": {"frozen": False}},
    "alphafuse, euclidean": {"encoder": {"id_space": "euclidean"}},
    **{name: {"encoder": {"name": name}} for name in ("id", "morec", "idreamrec", "unisrec", "llminit")},
    "whitenrec": {"encoder": {"name": "whitenrec"}, "hidden_dim": 6},
    **{name: {"encoder": {"name": name}} for name in ("rlmrec_con", "rlmrec_gen", "llm_esr")},
}
DREAMREC = {"name": "dreamrec", "timesteps": 40, "beta_range": [0.01, 0.4], "sampling_stride": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("reads")
    tiny_workspace(folder)
    return folder


def _config(folder: Path, encoder: str, loss: str, backbone: str = "sasrec", **train: Any) -> Config:
    chosen = DREAMREC if loss == "diffusion" else {"name": backbone}
    tree = tiny_config(folder, chosen, loss=LOSSES[loss] | {"num_negatives": 6}, **train).model_dump(mode="json")
    tree["decompose"]["directions"] = HIDDEN_DIM
    tree["model"] |= ENCODERS[encoder]
    return parse_config(tree)


@contextlib.contextmanager
def _ranks(world_size: int) -> Iterator[None]:
    """Context in which this process is one rank of a group whose collectives move nothing."""
    if world_size > 1:
        dist.init_process_group("cpu:fake,meta:fake", store=FakeStore(), rank=3, world_size=world_size)
    try:
        yield
    finally:
        if world_size > 1:
            dist.destroy_process_group()


def _take(config: Config) -> None:
    step, plan = unsized_step(config, np.ones(NUM_ITEMS), NUM_ITEMS)
    loss = step(plan, RATES)
    assert (loss.device.type, loss.shape) == ("meta", ())


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_of_every_loss_with_every_encoder(folder: Path, loss: str, encoder: str) -> None:
    with _ranks(64):
        _take(_config(folder, encoder, loss, max_grad_norm=1.0))


@pytest.mark.parametrize("loss", LOSSES)
def test_on_one_rank(folder: Path, loss: str) -> None:
    with _ranks(1):
        _take(_config(folder, "alphafuse", loss))


@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("backbone", ["gru4rec", "hstu", "sasrec"])
def test_of_every_backbone(folder: Path, backbone: str, positions: str) -> None:
    with _ranks(64):
        _take(_config(folder, "llm_esr", "sampled, shared", backbone, positions=positions))
