"""One optimizer step, top to bottom: look up, forward, backward, update. Everything else was planned on the host.

Knows nothing of epochs, validation or checkpoints. Waits for no number of the device. Tells the communicator's timer
where its time goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from alphafuse.config import TrainConfig
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.item_table import ItemTable, Rows
from alphafuse.kernels.negative_sums import OwnNegatives
from alphafuse.training.objectives.step_input import ScoredBlock, ScoredRows
from alphafuse.training.schedule import LearningRates
from alphafuse.training.step_plan import BlockPlan, ScoredPlan, StepPlan

if TYPE_CHECKING:
    from alphafuse.training.engine import DenseEngine


class TrainingStep:
    """Takes optimizer steps on the dense weights of an engine, whose module is a `DenseModel`, and on a table's rows.

    Every rank takes the same steps, each with its part of the batch.

    Attributes:
        gradient_norm: norm of the dense gradient in the last step that is reported, every `log_steps`-th (see
            `DenseEngine.step`), a scalar on the device.
        table_gradient_square: square of the norm of the table's gradient in that step (see `ItemTable.update`).
    """

    def __init__(
        self,
        config: TrainConfig,
        seed: int,
        table: ItemTable,
        engine: DenseEngine,
        communicator: Communicator,
    ) -> None:
        self._config = config
        self._seed = seed
        self._table = table
        self._engine = engine
        self._communicator = communicator
        self.gradient_norm = self.table_gradient_square = torch.tensor(torch.nan)

    def __call__(self, plan: StepPlan, rates: LearningRates) -> torch.Tensor:
        """Take the optimizer step of a plan. A collective.

        Returns:
            This rank's share of the mean loss over all targets, a float64 scalar: the shares of the ranks sum to it.
        """
        config, table, timer = self._config, self._table, self._communicator.timer
        losses, measured = [], (plan.number + 1) % config.log_steps == 0
        for micro, batch in enumerate(plan.micro_batches):
            self._seed_dropout(plan.number, micro)
            with timer.span("lookup"):
                scored = self._scored_rows(batch.scored)
                rows = table.lookup(batch.lookup)
            with timer.span("forward"):
                loss = self._engine.module(rows, batch.given, scored) / batch.targets_per_part
            with timer.span("backward"):
                self._engine.backward(loss)
            with timer.span("exchange"):
                for gathered in (rows, *(block.rows for block in (scored.blocks if scored else ()))):
                    table.collect_gradient(gathered)
            with timer.span("optimizer"):
                norm = self._engine.step(rates.dense, measured)
            losses.append(loss.detach().double())
        with timer.span("optimizer"):
            square = table.update(plan.update, rates.table, config.max_grad_norm, measured)
        self.gradient_norm = self.gradient_norm if norm is None else norm
        self.table_gradient_square = self.table_gradient_square if square is None else square
        for name, amount in plan.counts.items():
            timer.count(name, amount)
        total = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        parts = self._communicator.world_size * len(losses)
        return total if parts == 1 else total / parts

    def _scored_rows(self, plan: ScoredPlan | None) -> ScoredRows | None:
        if plan is None:
            return None
        blocks = [
            ScoredBlock(self._rows(block), OwnNegatives(block.own, plan.target_rows, block.rows))
            for block in plan.blocks
        ]
        return ScoredRows(blocks, plan.targets)

    def _rows(self, block: BlockPlan) -> Rows:
        if isinstance(block.rows, tuple):
            return self._table.local_block(*block.rows)
        return self._table.local_rows(block.rows)

    def _seed_dropout(self, step: int, micro: int) -> None:
        """Make dropout depend on seed, step, micro-batch and rank alone, so that a resumed training repeats it."""
        entropy = [self._seed, step, micro, self._communicator.rank]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
