"""Averages of the weights over the steps, which rank better than the last weights do.

Plain averages would keep what the weights were long ago, and exponential ones have a length that fits one number of
steps. Here step i of t weighs in proportion to i to the power γ (Karras et al. 2024, arXiv 2312.02696, eq. 4): the mean
age is about the same share of the training at any time, and no more than the average itself is kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch

from alphafuse.items.item_table import ItemTable
from alphafuse.training.engine import DenseEngine

PREFIX = "average."
"""Begin of the names of averages in the dense part of a checkpoint."""
BLOCK_ROWS = 65_536
"""Rows exchanged at a time."""
SNAPSHOTS = 10
"""Weights that enter an average within its mean age; more would not change it to speak of."""


class WeightAverage:
    """The averages of this rank's table rows, and of the dense weights, since the beginning of a phase.

    Args:
        share: mean age of the weights in the average, as a share of the steps so far; in (0, 1).

    Attributes:
        rows: float32 [rows of this rank, trainable_dim].
        dense: float32, by name, as in `DenseEngine.weights`; on the device.
        steps: steps of the phase up to the latest weights in the average.
    """

    def __init__(self, share: float, table: ItemTable, engine: DenseEngine) -> None:
        self._share = share
        self.rows = torch.empty_like(table.trainable, memory_format=torch.contiguous_format)
        self.restart(table, engine)

    def restart(self, table: ItemTable, engine: DenseEngine) -> None:
        """Begin again with the present weights."""
        self.steps = 0
        self.rows.copy_(table.trainable)
        self.dense = {name: weights.detach().clone() for name, weights in engine.full_weights()}

    def is_due(self, steps: int) -> bool:
        """Tell whether the weights after this number of steps of the phase belong into the average."""
        return steps * (1 - self._share / SNAPSHOTS) >= self.steps

    @torch.no_grad()
    def update(self, steps: int, table: ItemTable, engine: DenseEngine) -> None:
        """Take the weights after this number of steps into the average. A collective with ZeRO.

        They stand for all steps since the latest ones that were taken, whose weights share · (γ + 1) = 1 gives.
        """
        if steps <= self.steps:
            return
        new = 1 - (self.steps / steps) ** (1 / self._share)
        self.rows.lerp_(table.trainable, new)
        for name, weights in engine.full_weights():
            self.dense[name].lerp_(weights, new)
        self.steps = steps

    @contextlib.contextmanager
    def in_table(self, table: ItemTable) -> Iterator[None]:
        """Let a table hold the average in place of its rows for a while; nothing may train in it."""
        self._exchange(table)
        try:
            yield
        finally:
            self._exchange(table)

    def adopt(self, table: ItemTable, engine: DenseEngine) -> None:
        """Put the average in the place of the weights."""
        table.trainable.copy_(self.rows)
        engine.load_weights(self.dense)

    def state(self) -> dict[str, torch.Tensor]:
        """The dense part, for a checkpoint; `rows` are the other."""
        return {PREFIX + name: weights.cpu() for name, weights in self.dense.items()}

    def load_state(self, state: Mapping[str, torch.Tensor], steps: int) -> None:
        """Put back what `state` gave, and `steps`."""
        self.steps = steps
        for name, weights in self.dense.items():
            weights.copy_(state[PREFIX + name])

    def _exchange(self, table: ItemTable) -> None:
        for first in range(0, len(self.rows), BLOCK_ROWS):
            own, theirs = self.rows[first : first + BLOCK_ROWS], table.trainable[first : first + BLOCK_ROWS]
            kept = theirs.clone()
            theirs.copy_(own)
            own.copy_(kept)
