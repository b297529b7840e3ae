"""One optimizer step, top to bottom: draw negatives, look up, forward, backward, update.

Knows nothing of epochs, validation or checkpoints.
"""

from __future__ import annotations

import numpy as np
import torch

from alphafuse.collectives import Communicator
from alphafuse.config import TrainConfig
from alphafuse.data.batches import PADDING, Batch
from alphafuse.data.negatives import shared_negatives, uniform_negatives
from alphafuse.items.table import ItemTable
from alphafuse.training.engine import DenseEngine
from alphafuse.training.objective import StepInput


class TrainingStep:
    """Takes optimizer steps on the dense weights of an engine, whose module is an `Objective`, and on a table's rows.

    Every rank takes the same steps, each with its part of the batch.
    """

    def __init__(
        self,
        config: TrainConfig,
        seed: int,
        table: ItemTable,
        engine: DenseEngine,
        communicator: Communicator,
        device: torch.device,
    ) -> None:
        self._config = config
        self._seed = seed
        self._table = table
        self._engine = engine
        self._communicator = communicator
        self._device = device

    def __call__(self, batches: list[Batch], step: int, rate_factor: float) -> torch.Tensor:
        """One optimizer step over its micro-batches. A collective.

        Args:
            batches: this rank's part of each micro-batch.
            step: number of the step, which the random numbers depend on.
            rate_factor: on the learning rates.

        Returns:
            This rank's share of the mean loss over all targets, a scalar: the shares of the ranks sum to it.
        """
        config, table = self._config, self._table
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for micro, batch in enumerate(batches):
            self._seed_dropout(step, micro)
            given = self._step_input(batch, step)
            rows = table.lookup(given.items())
            catalog = table.local_rows() if config.loss.name == "softmax" else None
            loss = self._engine.module(rows, given, catalog) / batch.targets_per_part
            self._engine.backward(loss)
            for gathered in (rows, catalog):
                if gathered is not None:
                    table.collect_gradient(gathered)
            self._engine.step(config.learning_rate * rate_factor)
            total += loss.detach()
        table.update(config.table_learning_rate * rate_factor, config.max_grad_norm)
        return total / (self._communicator.world_size * len(batches))

    def _step_input(self, batch: Batch, step: int) -> StepInput:
        loss, num_items = self._config.loss, self._table.num_items
        if loss.name == "softmax":
            negatives = np.zeros(0, np.int64)
        elif loss.negatives == "shared":
            negatives = shared_negatives(self._seed, step, loss.num_negatives, num_items)
        else:
            # Drawn for every slot that could hold a target, so that a slot's draws have a fixed place.
            all_positions = self._config.positions == "all"
            slots = batch.targets if all_positions else batch.targets.max(axis=1, keepdims=True)
            first = batch.first_sample * slots.shape[1]
            negatives = uniform_negatives(self._seed, step, first, slots.ravel(), loss.num_negatives, num_items)
            negatives = negatives[slots.ravel() != PADDING]  # [targets, count]
        return StepInput(*(torch.from_numpy(a).to(self._device) for a in (batch.histories, batch.targets, negatives)))

    def _seed_dropout(self, step: int, micro: int) -> None:
        """Dropout depends on (seed, step, part) alone, so that a resumed training repeats it."""
        entropy = [self._seed, step, micro, self._communicator.rank]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
