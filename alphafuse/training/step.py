"""One optimizer step, top to bottom: draw negatives, look up, forward, backward, update.

Knows nothing of epochs, validation or checkpoints. Tells the communicator's timer where its time goes.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from alphafuse.config import TrainConfig
from alphafuse.data.sampling.batches import Batch
from alphafuse.data.sampling.samples import PADDING
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.item_table import ItemTable, Rows
from alphafuse.training.engine import DenseEngine
from alphafuse.training.negative_sampler import Negatives, NegativeSampler
from alphafuse.training.objectives.step_input import ScoredRows, StepInput
from alphafuse.training.schedule import LearningRates


class TrainingStep:
    """Takes optimizer steps on the dense weights of an engine, whose module is a `DenseModel`, and on a table's rows.

    Every rank takes the same steps, each with its part of the batch.

    Args:
        sampler: draws the negatives, and knows which items train.

    Attributes:
        gradient_norm: norm of the dense gradient in the last step that is reported, every `log_steps`-th (see
            `DenseEngine.step`).
        table_gradient_norm: norm of the table's gradient in the last step (see `Update`).
    """

    def __init__(
        self,
        config: TrainConfig,
        seed: int,
        table: ItemTable,
        engine: DenseEngine,
        sampler: NegativeSampler,
        communicator: Communicator,
        device: torch.device,
    ) -> None:
        self._config = config
        self._seed = seed
        self._table = table
        self._engine = engine
        self._sampler = sampler
        self._communicator = communicator
        self._device = device
        self.gradient_norm = self.table_gradient_norm = math.nan
        # None where all items train: their rows are then read in place, without a copy.
        trained = sampler.trained
        self._trained_rows = None if trained is None else self._own_rows(torch.from_numpy(trained))

    def __call__(self, batches: list[Batch], step: int, rates: LearningRates) -> torch.Tensor:
        """Take one optimizer step over its micro-batches. A collective.

        Args:
            batches: this rank's part of each micro-batch.
            step: number of the step, which the random numbers depend on.

        Returns:
            This rank's share of the mean loss over all targets, a scalar: the shares of the ranks sum to it.
        """
        config, table, timer = self._config, self._table, self._communicator.timer
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for micro, batch in enumerate(batches):
            self._seed_dropout(step, micro)
            with timer.span("data"):
                negatives = self._sampler.draw(batch, step)
            with timer.span("lookup"):
                scored = self._scored_rows(batch, negatives)
                given = self._step_input(batch, negatives, scored, step)
                rows = table.lookup(given.items())
            with timer.span("forward"):
                loss = self._engine.module(rows, given, scored) / batch.targets_per_part
            with timer.span("backward"):
                self._engine.backward(loss)
            with timer.span("exchange"):
                for gathered in (rows, *(scored.blocks if scored else ())):
                    table.collect_gradient(gathered)
            with timer.span("optimizer"):
                measured = micro == len(batches) - 1 and (step + 1) % config.log_steps == 0
                norm = self._engine.step(rates.dense, measured)
                if measured:
                    self.gradient_norm = norm
            self._count(rows)
            total += loss.detach()
        with timer.span("optimizer"):
            update = table.update(rates.table, config.max_grad_norm)
        self.table_gradient_norm = update.gradient_norm
        timer.count("rows_touched", update.rows)
        return total / (self._communicator.world_size * len(batches))

    def _count(self, rows: Rows) -> None:
        """Count the rows that one lookup asked for and that this rank answered."""
        distinct, timer = len(rows.trainable), self._communicator.timer
        timer.count("rows_requested", int((rows.inverse < distinct).sum()))
        timer.count("rows_distinct", distinct)
        timer.count("rows_served", len(rows.requested))

    def _step_input(self, batch: Batch, negatives: Negatives, scored: ScoredRows | None, step: int) -> StepInput:
        looked_up = negatives.items if scored is None or self._sampler.aligns else np.zeros(0, np.int64)
        histories, targets, items = (
            torch.from_numpy(array).to(self._device) for array in (batch.histories, batch.targets, looked_up)
        )
        log_weights = negatives.log_weights
        if isinstance(log_weights, torch.Tensor):
            log_weights = log_weights.to(self._device)
        return StepInput(histories, targets, items, log_weights, step, batch.first_sample)

    def _scored_rows(self, batch: Batch, negatives: Negatives) -> ScoredRows | None:
        """This rank's rows that the targets of all ranks are scored against; None where the loss looks rows up."""
        loss, table = self._config.loss, self._table
        if loss.name != "softmax" and not (loss.samples_negatives and loss.negatives == "shard_local"):
            return None
        # Of a row: scores, their exponentials and the gradients of both; values, encoded vector and their gradients.
        targets_of_all = batch.targets_per_part * self._communicator.world_size
        bytes_per_row = 16 * (targets_of_all + table.features.shape[1] + table.trainable.shape[1])
        block_rows = max(1, int((loss.memory_mib << 20) / bytes_per_row))
        targets = torch.from_numpy(batch.targets[batch.targets != PADDING]).to(self._device)
        everyones_targets = self._communicator.all_gather_rows(targets)[0] - table.first_row
        if loss.name == "softmax":
            return ScoredRows(self._all_blocks(block_rows), everyones_targets)
        own = self._own_rows(torch.from_numpy(negatives.items))
        return ScoredRows([table.local_rows(rows) for rows in own.split(block_rows) if len(rows)], everyones_targets)

    def _all_blocks(self, block_rows: int) -> list[Rows]:
        """The rows of this rank that train."""
        table, num_rows = self._table, len(self._table.trainable)
        if self._trained_rows is not None:
            return [table.local_rows(rows) for rows in self._trained_rows.split(block_rows) if len(rows)]
        starts = range(0, num_rows, block_rows)
        return [table.local_block(start, min(start + block_rows, num_rows)) for start in starts]

    def _own_rows(self, items: torch.Tensor) -> torch.Tensor:
        """Row numbers, within this rank's range, of those of the items that this rank owns."""
        rows = items.to(self._device) - self._table.first_row
        return rows[(rows >= 0) & (rows < len(self._table.trainable))]

    def _seed_dropout(self, step: int, micro: int) -> None:
        """Make dropout depend on seed, step, micro-batch and rank alone, so that a resumed training repeats it."""
        entropy = [self._seed, step, micro, self._communicator.rank]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
