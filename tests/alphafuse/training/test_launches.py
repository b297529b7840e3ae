"""Kernels that a training step launches, counted by the operations that reach the dispatcher; none waits."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from deepspeed.accelerator import get_accelerator
from support.definitions.launches import AsOnAGpu, Launches
from support.devices.compiled_kernels import LAUNCHED, compile_kernels
from support.processes.multi_process import run_ranks

from alphafuse.config import TrainConfig
from alphafuse.data.sampling.batches import Batch
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.encoders.alphafuse import AlphaFuseEncoder
from alphafuse.items.item_table import ItemTable
from alphafuse.items.row_adam import RowAdam
from alphafuse.recommenders.sasrec import SASRec
from alphafuse.training.engine import DenseEngine
from alphafuse.training.negative_sampler import NegativeSampler
from alphafuse.training.objectives.scoring_objective import ScoringObjective
from alphafuse.training.schedule import LearningRates
from alphafuse.training.step import TrainingStep
from alphafuse.training.step_plan import StepPlanner

NUM_ITEMS, LENGTH, SAMPLES = 1000, 50, 4


def _count(train: dict[str, Any]) -> tuple[int, list[str]]:
    """Launches and reads of the second step of a default model on one rank."""
    config, communicator = TrainConfig.model_validate({"log_steps": 1, **train}), Communicator()
    torch.manual_seed(0)
    encoder, backbone = AlphaFuseEncoder(16, 8, "add", "normal"), SASRec(16, LENGTH, 1, 1, 0.1)
    objective = ScoringObjective(encoder, backbone, config.loss, NUM_ITEMS, communicator)
    table = ItemTable(NUM_ITEMS, 16, 8, RowAdam(weight_decay=config.weight_decay), communicator)
    table.features.normal_()
    with patch("deepspeed.runtime.bf16_optimizer.see_memory_usage"):  # it collects garbage to report what memory holds
        engine = DenseEngine(objective, config, communicator.world_size)
    sampler = NegativeSampler(config, 0, NUM_ITEMS, communicator, None, None, False)
    planner = StepPlanner(config, table, sampler, objective.draw, communicator.apart("planning"), torch.device("cpu"))
    step, rates = TrainingStep(config, 0, table, engine, communicator), LearningRates(1e-3, 1e-3)
    generator = np.random.default_rng(0)
    for number in range(2):
        histories, targets = generator.integers(NUM_ITEMS, size=(2, SAMPLES, LENGTH))
        plan = planner([Batch(histories, targets, 0)], number)
        counted, kernels = Launches(), LAUNCHED.total()
        waits = patch.object(get_accelerator(), "synchronize", side_effect=AssertionError("DeepSpeed waits"))
        with patch("alphafuse.kernels.row_update.BLOCK_ROWS", NUM_ITEMS), waits, AsOnAGpu(), counted:
            step(plan, rates)
        kernels = LAUNCHED.total() - kernels
    return sum(counted.launched.values()) + kernels, counted.reads


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("train", "most"),
    [
        ({"log_steps": 20}, 120),
        ({"max_grad_norm": 1.0}, 130),
        ({"deepspeed": {"zero_stage": 1}, "max_grad_norm": 1.0}, 170),
        ({"deepspeed": {"zero_stage": 2}, "max_grad_norm": 1.0}, 170),
        ({"deepspeed": {"zero_stage": 1, "bf16": True}, "max_grad_norm": 1.0}, 200),
        ({"deepspeed": {"zero_stage": 2, "bf16": True}, "max_grad_norm": 1.0}, 200),
    ],
    ids=str,
)
def test_few_launches_and_no_reads(train: dict[str, Any], most: int) -> None:
    launches, reads = run_ranks(1, _count, train)[0]
    assert not reads
    assert 60 < launches <= most


@pytest.mark.distributed
@pytest.mark.parametrize(("train", "most"), [({"log_steps": 20}, 120), ({"max_grad_norm": 1.0}, 130)], ids=str)
def test_few_launches_with_kernels(train: dict[str, Any], most: int) -> None:
    launches, reads = run_ranks(1, _count, train, prepare=compile_kernels)[0]
    assert not reads
    assert 60 < launches <= most
