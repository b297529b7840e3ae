"""A training step without values: rows and weights lie on torch's meta device, which has shapes alone.

Whoever asks such a device for a number gets an error: a value, a size that depends on values, a copy to the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from alphafuse.config import Config
from alphafuse.data.sampling.batches import Batch
from alphafuse.data.sampling.samples import PADDING
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.item_table import ItemTable
from alphafuse.items.row_adam import RowAdam
from alphafuse.storage.workspace import Workspace
from alphafuse.training.negative_sampler import NegativeSampler
from alphafuse.training.objectives.objective_building import build_objective
from alphafuse.training.schedule import LearningRates
from alphafuse.training.step import TrainingStep
from alphafuse.training.step_plan import StepPlan, StepPlanner

META = torch.device("meta")


class AlikeRanks(Communicator):
    """Plans for ranks that all ask every owner for what this rank asks itself: there is nobody to be asked."""

    def apart(self) -> AlikeRanks:
        return self

    def all_gather_rows(
        self, tensor: torch.Tensor, counts: Sequence[int] | None = None
    ) -> tuple[torch.Tensor, list[int]]:
        return tensor.repeat(self.world_size, *[1] * (tensor.dim() - 1)), [len(tensor)] * self.world_size

    def all_reduce(self, tensor: torch.Tensor, op: Literal["sum", "max"] = "sum") -> torch.Tensor:
        return tensor * self.world_size if op == "sum" else tensor

    def exchange_counts(self, counts: Sequence[int]) -> list[int]:
        return [counts[self.rank]] * self.world_size

    def exchange(self, rows: torch.Tensor, send: Sequence[int], receive: Sequence[int]) -> torch.Tensor:
        return rows.split(list(send))[self.rank].repeat(self.world_size)


class PlainGradients:
    """Stands for the engine: runs the backward pass, and updates nothing."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step(self, learning_rate: float, measured: bool = True) -> None:
        self.module.zero_grad()


def unsized_step(config: Config, popularity: np.ndarray, num_items: int) -> tuple[TrainingStep, StepPlan]:
    """The step of `config` on the meta device, for the ranks of the process group, and a plan for it."""
    communicator, planning, train = Communicator(), AlikeRanks(), config.train
    objective = build_objective(config, Workspace(config.workspace), communicator)
    encoder = objective.encoder
    feature_dim = 0 if encoder.frozen is None else encoder.frozen.dim
    table = ItemTable(num_items, feature_dim, encoder.trainable_dim, RowAdam(weight_decay=0.1), communicator, META)
    aligns = encoder.alignment_weight > 0
    sampler = NegativeSampler(train, config.seed, num_items, planning, popularity, None, aligns)
    planner = StepPlanner(train, table, sampler, objective.draw, planning, META)
    engine: Any = PlainGradients(objective.to(META))
    generator, length = np.random.default_rng(0), config.model.history_length
    histories = generator.integers(num_items, size=(train.batch_size, length))
    targets = generator.integers(num_items, size=(train.batch_size, length))
    histories[1, 2:] = targets[1, 2:] = PADDING
    plan = planner([Batch(histories, targets, 0)], 1)
    return TrainingStep(train, config.seed, table, engine, communicator), plan


RATES = LearningRates(0.1, 0.1)
