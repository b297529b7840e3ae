"""Plan of one optimizer step, made on the host before the step begins: negatives, lookups, targets, sums of gradients.

A plan depends on the batch and on the number of the step, and on no weight, so that it can be made while the step
before it is computed. Its collectives move counts and item indices between the hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alphafuse.config import TrainConfig
from alphafuse.data.sampling.batches import Batch
from alphafuse.data.sampling.samples import PADDING
from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.host_arrays import to_device
from alphafuse.items.item_table import ItemTable
from alphafuse.items.lookup_plan import LookupPlan, UpdatePlan, plan_lookup, plan_update
from alphafuse.kernels.device import runs_kernels
from alphafuse.training.negative_sampler import Negatives, NegativeSampler
from alphafuse.training.objectives.step_input import StepInput, equal_pairs, plan_input


@dataclass(frozen=True)
class BlockPlan:
    """Rows of this rank that the targets of all ranks are scored against.

    Attributes:
        rows: numbers within this rank's range, int64 [rows]; or first and end of rows that lie side by side, which are
            read in place.
        own: int64 [pairs], positions in the flat scores, [targets of all ranks · rows], of a target's own row.
    """

    rows: torch.Tensor | tuple[int, int]
    own: torch.Tensor


@dataclass(frozen=True)
class ScoredPlan:
    """Plan of `ScoredRows`.

    Attributes:
        blocks: the rows of this rank.
        targets: number of targets of each rank.
        target_rows: int64 [targets of all ranks], their numbers within this rank's range; others' targets lie outside.
    """

    blocks: list[BlockPlan]
    targets: list[int]
    target_rows: torch.Tensor


@dataclass(frozen=True)
class MicroBatchPlan:
    """One micro-batch of one rank.

    Attributes:
        given: input of the model.
        lookup: rows that it looks up.
        scored: rows of this rank that targets are scored against; None where the loss looks rows up.
        targets_per_part: number of targets of the whole optimizer step, divided by the number of its parts (ranks ×
            micro-batches). Dividing each part's sum of losses by it, and averaging over the parts, gives the mean
            over all targets.
    """

    given: StepInput[Any]
    lookup: LookupPlan
    scored: ScoredPlan | None
    targets_per_part: float


@dataclass(frozen=True)
class StepPlan:
    """One optimizer step of one rank, on the rank's device.

    Attributes:
        number: number of the step.
        micro_batches: its micro-batches.
        update: update of the table's rows.
        samples: number of this rank's samples.
        counts: amounts to be counted for the step, by name.
    """

    number: int
    micro_batches: list[MicroBatchPlan]
    update: UpdatePlan
    samples: int
    counts: dict[str, int]


class StepPlanner:
    """Plans the steps of one rank.

    Args:
        draw: draws the random numbers of a micro-batch that the objective needs on the host (see `DenseModel.draw`).
        communicator: for the collectives of the planning alone, which may happen in a thread of their own. Used by
            `sampler` too.
    """

    def __init__(
        self,
        config: TrainConfig,
        table: ItemTable,
        sampler: NegativeSampler,
        draw: Callable[[int, Batch], Any],
        communicator: Communicator,
        device: torch.device,
    ) -> None:
        self._config = config
        self._partition = table.partition
        self._first_row, self._end = table.partition.range(communicator.rank)
        self._row_values = table.features.shape[1] + table.trainable.shape[1]
        self._sampler = sampler
        self._draw = draw
        self._communicator = communicator
        self._device = device
        trained = sampler.trained
        self._all_train = trained is None
        self._trained = np.zeros(0, np.int64)  # this rank's rows that train, for the loss over all of them
        if config.loss.name == "softmax":
            self._trained = np.arange(self._end - self._first_row) if trained is None else self._own_rows(trained)

    def plans(self, steps: Iterable[list[Batch]], first: int) -> Iterator[StepPlan]:
        """Plan steps from the number `first` on; `steps` are their micro-batches. A collective."""
        for number, batches in enumerate(steps, first):
            yield self(batches, number)

    def __call__(self, batches: list[Batch], number: int) -> StepPlan:
        """Plan the step `number` over its micro-batches. A collective."""
        timer = self._communicator.timer
        timer.begin_step()
        targets_per_part = self._targets_per_part(batches)
        micro_batches = [self._micro_batch(batch, number, targets_per_part) for batch in batches]
        bytes_sent = timer.end_step().get("bytes_sent", 0)
        lookups = [micro.lookup for micro in micro_batches]
        update = plan_update([rows for micro in micro_batches for rows in _requested(micro)])
        counts = {
            "rows_requested": sum(len(lookup.gathering.sums.order) for lookup in lookups),
            "rows_distinct": sum(lookup.distinct for lookup in lookups),
            "rows_served": sum(len(lookup.requested) for lookup in lookups),
            "rows_touched": len(update.rows),
            "bytes_sent": int(bytes_sent),
        }
        samples = sum(len(batch.histories) for batch in batches)
        return to_device(StepPlan(number, micro_batches, update, samples, counts), self._device)

    def _targets_per_part(self, batches: list[Batch]) -> float:
        """Targets of a step for each of its parts. A collective: a rank knows its own batches alone."""
        own = sum(int((batch.targets != PADDING).sum()) for batch in batches)
        everyones = int(self._communicator.all_reduce(torch.tensor(own)))
        return everyones / (self._communicator.world_size * len(batches))

    def _micro_batch(self, batch: Batch, number: int, targets_per_part: float) -> MicroBatchPlan:
        negatives = self._sampler.draw(batch, number)
        scored = self._scored(batch, negatives, targets_per_part)
        looked_up = negatives.items if scored is None or self._sampler.aligns else np.zeros(0, np.int64)
        one_each, draws = self._config.positions == "last", self._draw(number, batch)
        given, items = plan_input(batch.histories, batch.targets, looked_up, negatives.log_weights, draws, one_each)
        lookup = plan_lookup(items, self._partition, self._communicator)
        return MicroBatchPlan(given, lookup, scored, targets_per_part)

    def _scored(self, batch: Batch, negatives: Negatives, targets_per_part: float) -> ScoredPlan | None:
        loss = self._config.loss
        if loss.name != "softmax" and not (loss.samples_negatives and loss.negatives == "shard_local"):
            return None
        targets = torch.from_numpy(batch.targets[batch.targets != PADDING])
        everyones, counts = self._communicator.all_gather_rows(targets)
        rows = self._trained if loss.name == "softmax" else self._own_rows(negatives.items)
        target_rows = everyones - self._first_row
        which, columns = equal_pairs(target_rows.numpy(), rows)
        block_rows, blocks = self._block_rows(targets_per_part * self._communicator.world_size), []
        for start in range(0, len(rows), block_rows):
            stop = min(start + block_rows, len(rows))
            inside = (columns >= start) & (columns < stop)
            own = torch.from_numpy(which[inside] * (stop - start) + columns[inside] - start)
            in_place = loss.name == "softmax" and self._all_train
            blocks.append(BlockPlan((start, stop) if in_place else torch.from_numpy(rows[start:stop]), own))
        return ScoredPlan(blocks, counts, target_rows)

    def _block_rows(self, targets: float) -> int:
        """Number of rows whose scores fit, for so many targets, into the memory that the configuration allows."""
        # Of a row: scores, their exponentials and the gradients of both, where there are more of them than a tile;
        # values, encoded vector and their gradients.
        scores = 0 if runs_kernels(self._device) else targets
        bytes_per_row = 16 * (scores + self._row_values)
        return max(1, int((self._config.loss.memory_mib << 20) / bytes_per_row))

    def _own_rows(self, items: np.ndarray) -> np.ndarray:
        """Row numbers, within this rank's range, of those of the items that this rank owns."""
        return items[(items >= self._first_row) & (items < self._end)] - self._first_row


def _requested(micro: MicroBatchPlan) -> Iterator[torch.Tensor]:
    """Yield the rows of this rank in the order in which their gradients are collected."""
    yield micro.lookup.requested
    for block in micro.scored.blocks if micro.scored else ():
        yield torch.arange(*block.rows) if isinstance(block.rows, tuple) else block.rows
