"""Training in bfloat16 under ZeRO 1 and 2, for every encoder with every backbone: it resumes exactly, and what a
validation measures is what the finished model gives."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import HIDDEN_DIM, tiny_config, tiny_workspace

from alphafuse.config import Config, parse_config
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.evaluation.evaluator import validation_metrics
from alphafuse.events import ignore
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from alphafuse.training.loop import Trainer

ENCODERS: dict[str, dict[str, Any]] = {
    "alphafuse": {},
    "alphafuse, trained": {"encoder": {"frozen": False}},
    **{name: {"encoder": {"name": name}} for name in ("id", "morec", "idreamrec", "unisrec", "llminit")},
    "whitenrec": {"encoder": {"name": "whitenrec"}, "hidden_dim": 6},
    **{name: {"encoder": {"name": name}} for name in ("rlmrec_con", "rlmrec_gen", "llm_esr")},
}
"""All but the euclidean ablations, which refuse bfloat16."""
BACKBONES: dict[str, dict[str, Any]] = {
    "sasrec": {"name": "sasrec"},
    "gru4rec": {"name": "gru4rec", "num_layers": 2},
    "hstu": {"name": "hstu"},
    "dreamrec": {"name": "dreamrec", "timesteps": 40, "beta_range": [0.01, 0.4], "sampling_stride": 20},
}


def _config(folder: Path, zero_stage: int, encoder: str, backbone: str) -> Config:
    settings: dict[str, Any] = {"batch_size": 30, "max_epochs": 2, "checkpoint_steps": 2, "accumulation": 2}
    if backbone == "dreamrec":
        settings["loss"] = {"name": "diffusion", "similarity": "dot", "num_negatives": 6}
    engine = {"bf16": True, "zero_stage": zero_stage}
    tree = tiny_config(folder, BACKBONES[backbone], deepspeed=engine, **settings).model_dump(mode="json")
    tree["decompose"]["directions"] = HIDDEN_DIM
    tree["model"] |= ENCODERS[encoder]
    return parse_config(tree)


def _train(configs: list[Config]) -> list[tuple[Any, ...]]:
    """The results of each configuration, see `_train_one`."""
    with ExitStack() as stack:
        for module in ("bf16_optimizer", "zero.stage_1_and_2"):  # it collects garbage to report what memory holds
            stack.enter_context(patch(f"deepspeed.runtime.{module}.see_memory_usage"))
        return [_train_one(config) for config in configs]


def _train_one(config: Config) -> tuple[Any, ...]:
    """Train, and resume in the middle.

    Returns:
        Precision of the dense weights in training; dense state and rows after the last step, and those of the training
        that was resumed; metrics of the best validation, and those of the finished model.
    """
    workspace, communicator = Workspace(config.workspace), Communicator()
    arguments = (config, workspace, {"test": "bfloat16"}, communicator, torch.device("cpu"), ignore)
    trainer = Trainer(*arguments)
    trainer._train_epoch()
    trainer._checkpoints.wait()
    resumed = Trainer(*arguments)
    resumed._resume()
    states = []
    for each in (trainer, resumed):
        each._train_epoch()
        each._checkpoints.wait()
        states.append((each.engine.state(), each.table.trainable.clone()))
    details = resumed.run()
    model, sequences = load_trained(config, workspace, communicator), SequenceStore(workspace)
    metrics = validation_metrics(model, sequences, "validation", config.evaluate, communicator, config.similarity)
    best = details["history"][details["best"]["epoch"] - 1]["validation"]
    return next(trainer._objective.parameters()).dtype, states, best, metrics


@pytest.mark.distributed
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_encoder_with_every_backbone(tmp_path: Path, backbone: str) -> None:
    configs = []
    for number, encoder in enumerate(ENCODERS):
        tiny_workspace(tmp_path / str(number))
        configs.append(_config(tmp_path / str(number), 1 + number % 2, encoder, backbone))
    for results in run_ranks(2, _train, configs):
        for encoder, (precision, states, best, metrics) in zip(ENCODERS, results, strict=True):
            (dense, rows), (dense_again, rows_again) = states
            assert precision == torch.bfloat16, encoder
            assert metrics == best, encoder
            assert torch.equal(rows, rows_again), encoder
            assert all(torch.isfinite(value).all() for value in dense.values()), encoder
            assert all(torch.equal(dense_again[name], value) for name, value in dense.items()), encoder
