"""Plays training steps of all ranks: their batches, plans and exchanges, as the project makes them, without values.

Samples, negatives, plans and exchanges are those of a real training. The rows lie on torch's meta device, which has
shapes alone; the dense part runs there once, to count its operations.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from alphafuse.config import TrainConfig
from alphafuse.data.sampling.batches import Batch, BatchOrder
from alphafuse.data.sampling.samples import Windowing
from alphafuse.data.sampling.shuffle import SampleStream
from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.host_arrays import to_device
from alphafuse.distributed.step_timer import StepTimer
from alphafuse.items.encoders.alphafuse import AlphaFuseEncoder
from alphafuse.items.item_table import ItemTable, Rows
from alphafuse.items.row_adam import RowAdam
from alphafuse.recommenders.sasrec import SASRec
from alphafuse.training.negative_sampler import NegativeSampler
from alphafuse.training.objectives.scoring_objective import ScoringObjective
from alphafuse.training.step_plan import MicroBatchPlan, StepPlanner
from benchmarks.simulation.played_ranks import play

META, CPU = torch.device("meta"), torch.device("cpu")


@dataclass(frozen=True)
class Model:
    """Sizes of the model, AlphaFuse over SASRec with one layer."""

    num_items: int
    hidden_dim: int
    null_dim: int
    history_length: int

    def table(self, communicator: Communicator) -> ItemTable:
        """This rank's rows, which take no memory."""
        return ItemTable(self.num_items, self.hidden_dim, self.null_dim, RowAdam(), communicator, META)

    def objective(self, train: TrainConfig, communicator: Communicator) -> ScoringObjective:
        """The dense part of the model, on the meta device."""
        encoder = AlphaFuseEncoder(self.hidden_dim, self.null_dim, "add", "zeros")
        backbone = SASRec(self.hidden_dim, self.history_length, 1, 1, 0.1)
        return ScoringObjective(encoder, backbone, train.loss, self.num_items, communicator).to(META)


@dataclass(frozen=True)
class RankStep:
    """One step of one rank.

    Attributes:
        samples, targets: numbers of this rank's ones.
        distinct, served, touched: rows that it asked for, that it answered for, and that it updated.
        sent: bytes sent to other ranks, as the communicator counts them: of the plan and of the rows together.
        sent_by_hosts: those of the plan.
        received: bytes of rows and their gradients that came from other ranks.
        planning: CPU seconds of the plan.
    """

    samples: int
    targets: int
    distinct: int
    served: int
    touched: int
    sent: int
    sent_by_hosts: int
    received: int
    planning: float


@dataclass(frozen=True)
class DenseWork:
    """The work of a rank's step on its device.

    Attributes:
        operations: floating-point operations of matrix products, a multiplication and an addition counting one each.
        bytes: bytes that operations read and write, each tensor once for every operation.
        scores: those among them of arrays of the size of the scores, which kernels do not write down.
        weights: number of dense weights.
    """

    operations: float
    bytes: float
    scores: float
    weights: int


@dataclass(frozen=True)
class PlayedTraining:
    """Steps of all ranks, `[step][rank]`, and the work of the first rank in the first of them.

    Attributes:
        table_bytes: bytes of the item table of each rank.
        steps_per_epoch: steps of an epoch.
        cutting: CPU seconds per sample of reading, cutting and shuffling, without decoding files.
    """

    steps: list[list[RankStep]]
    dense: DenseWork
    table_bytes: list[int]
    steps_per_epoch: int
    cutting: float


def play_training(
    train: TrainConfig, model: Model, log: Any, seed: int, world_size: int, num_steps: int
) -> PlayedTraining:
    """Play the first steps of a training.

    Args:
        train: its loss must look rows up (negatives `shared` or `uniform`).
        log: a `SequenceStore` or a `MadeUpLog`.
    """
    order = batch_order(train, model.history_length, log, seed)
    begin = time.thread_time()
    batches = [
        list(itertools.islice(order.epoch(0, 0, rank, world_size), num_steps)) for rank in range(world_size)
    ]  # [rank][step]
    cutting = time.thread_time() - begin
    samples = sum(len(batch.histories) for steps in batches for parts in steps for batch in parts)
    return play_steps(train, model, batches, seed, order.steps_per_epoch, cutting / samples)


def play_steps(
    train: TrainConfig,
    model: Model,
    batches: Sequence[Sequence[list[Batch]]],
    seed: int,
    steps_per_epoch: int = 0,
    cutting: float = 0.0,
) -> PlayedTraining:
    """Play the steps over given batches, `[rank][step]`."""
    ranks = play(len(batches), lambda rank: _play_rank(train, model, seed, batches[rank]))
    steps = [list(step) for step in zip(*(steps for steps, _, _ in ranks), strict=True)]
    return PlayedTraining(steps, ranks[0][1], [rank[2] for rank in ranks], steps_per_epoch, cutting)


def batch_order(train: TrainConfig, history_length: int, log: Any, seed: int) -> BatchOrder:
    """The batches of a log, as the trainer orders them."""
    samples = SampleStream(log, Windowing.of(train, history_length), train.shuffle_users, seed)
    return BatchOrder(samples, train.batch_size, train.accumulation)


def _play_rank(
    train: TrainConfig, model: Model, seed: int, steps: Sequence[list[Batch]]
) -> tuple[list[RankStep], DenseWork, int]:
    communicator, planning = Communicator(), Communicator()
    table = model.table(communicator)
    sampler = NegativeSampler(train, seed, model.num_items, planning, None, None, False)
    planner = StepPlanner(train, table, sampler, lambda number, batch: None, planning, CPU)
    played, dense = [], DenseWork(0, 0, 0, 0)
    for number, batches in enumerate(steps):
        begin = time.thread_time()
        plan = planner(batches, number)
        planned = time.thread_time() - begin
        communicator.timer = StepTimer()
        communicator.timer.begin_step()
        received = 0
        for micro in plan.micro_batches:
            assert micro.scored is None, "losses over sharded items are not played: take negatives that are looked up"
            rows = table.lookup(to_device(micro.lookup, META))
            if number == 0 and communicator.rank == 0:
                dense = _count(train, model, rows, micro, communicator)
            table.collect_gradient(rows)
            received += _received(micro, table, communicator.rank)
        table.update(to_device(plan.update, META), 0.0, measured=False)
        by_hosts = plan.counts["bytes_sent"]
        sent = by_hosts + int(communicator.timer.end_step()["bytes_sent"]) if communicator.world_size > 1 else 0
        targets = sum(len(micro.given.predicted.places) for micro in plan.micro_batches)
        distinct, served, touched = (plan.counts[f"rows_{name}"] for name in ("distinct", "served", "touched"))
        played.append(RankStep(plan.samples, targets, distinct, served, touched, sent, by_hosts, received, planned))
    return played, dense, table.features.untyped_storage().nbytes()


def _received(micro: MicroBatchPlan, table: ItemTable, rank: int) -> int:
    """Bytes of rows and of gradients that come from other ranks."""
    values, trainable = table.features.shape[1] + table.trainable.shape[1], table.trainable.shape[1]
    lookup = micro.lookup
    asked, served = (sum(counts) - counts[rank] for counts in (lookup.sent, lookup.received))
    return 4 * (asked * values + served * trainable)


def _count(
    train: TrainConfig, model: Model, rows: Rows, micro: MicroBatchPlan, communicator: Communicator
) -> DenseWork:
    """Run the dense part forward and backward, and count."""
    objective = model.objective(train, communicator)
    given = to_device(micro.given, META)
    scores = len(given.predicted.places) * int(np.prod(given.negatives[-1:]))
    with FlopCounterMode(display=False) as counter, _Traffic(scores) as traffic:
        (objective(rows, given, None) / micro.targets_per_part).backward()
    weights = sum(weight.numel() for weight in objective.parameters())
    return DenseWork(counter.get_total_flops(), traffic.bytes, traffic.large, weights)


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations read and write; views move nothing.

    Args:
        large: number of elements from which a tensor counts for `large`, too.
    """

    def __init__(self, large: int) -> None:
        super().__init__()
        self.bytes = self.large = 0
        self._threshold = large

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not (function.is_view or "empty" in str(function)):
            for leaf in _pytree.tree_leaves((args, kwargs, result)):
                if isinstance(leaf, torch.Tensor):
                    self.bytes += leaf.nbytes
                    self.large += leaf.nbytes * (leaf.numel() >= self._threshold)
        return result
