"""The item table: frozen features and trainable rows of all items, partitioned by rows across the ranks.

A lookup gathers whatever rows a step needs in one exchange, and the update sends their gradients back to the
owners, so traffic and memory of a step depend on the batch and not on the catalog. The table knows nothing of
what the rows mean; the encoder does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.row_partition import RowPartition
from alphafuse.items.row_adam import STATE_VALUES, RowAdam

PADDING = -1
CPU_UPDATE_ROWS, GPU_UPDATE_ROWS = 1024, 1 << 20
"""Rows updated at a time: on CPUs they stay in the second-level cache from the gathering to the writing back, and
everywhere they bound the memory of a step that touches the whole table."""


@dataclass(frozen=True)
class Rows:
    """The distinct rows that one lookup gathered.

    Attributes:
        features: [distinct, feature_dim], frozen.
        trainable: [distinct, trainable_dim], a leaf that collects the gradient.
        inverse: int64, shape of the requested item indices: position of each in the distinct rows. Padding points
            behind the end.
        requested: row numbers that this rank must answer for, within its own range, in the order they were sent.
        sent, received: numbers of rows that this rank asked each rank for, and that each rank asked it for.
    """

    features: torch.Tensor
    trainable: torch.Tensor
    inverse: torch.Tensor
    requested: torch.Tensor
    sent: list[int]
    received: list[int]

    def expand(self, encoded: torch.Tensor) -> torch.Tensor:
        """Spread encoded rows [distinct, dim] to [*shape of the requested indices, dim]; padding becomes zeros."""
        return functional.embedding(self.inverse, functional.pad(encoded, (0, 0, 0, 1)))


@dataclass(frozen=True)
class Update:
    """Effect of one optimizer step on this rank's rows.

    Attributes:
        rows: number of rows that it touched.
        gradient_norm: norm of the table's gradient before clipping: over all ranks where it is clipped, else over
            this rank's rows.
    """

    rows: int
    gradient_norm: float


class ItemTable:
    """This rank's rows [first_row, first_row + rows) and the exchange with the other ranks.

    All values of an item lie side by side in memory, so a lookup or an update touches one place per item. They begin as
    zeros; `build_table` fills `features` and `trainable`.

    Args:
        num_items: number of rows over all ranks.
        feature_dim, trainable_dim: numbers of frozen and of trainable columns; either may be 0.
        optimizer: updates the trainable rows.
        communicator: collectives of the ranks that share the table.
        device: device of the rows.
        trains: False: the rows are looked up and never updated; there is no room for the optimizer's moments.

    Attributes:
        features: [rows of this rank, feature_dim], frozen.
        trainable, first_moment, second_moment: [rows of this rank, trainable_dim]; the moments have no columns where
            nothing trains.
    """

    def __init__(
        self,
        num_items: int,
        feature_dim: int,
        trainable_dim: int,
        optimizer: RowAdam,
        communicator: Communicator,
        device: torch.device | None = None,
        trains: bool = True,
    ) -> None:
        self.num_items = num_items
        self.partition = RowPartition(num_items, communicator.world_size)
        self.first_row, end = self.partition.range(communicator.rank)
        self.optimizer = optimizer
        width = feature_dim + (STATE_VALUES if trains else 1) * trainable_dim
        records = torch.zeros(end - self.first_row, width, device=device)
        self._looked_up = records[:, : feature_dim + trainable_dim]
        self._state = records[:, feature_dim:]
        self.features = records[:, :feature_dim]
        parts = self._state.tensor_split([trainable_dim, 2 * trainable_dim], dim=1)
        self.trainable, self.first_moment, self.second_moment = parts
        self._communicator = communicator
        self._pending: list[tuple[torch.Tensor, torch.Tensor]] = []

    def lookup(self, items: torch.Tensor) -> Rows:
        """Gather the rows of `items` (int64, any shape, −1 pads). A collective: every rank must call it.

        Each rank sends the distinct item indices to their owners (all-to-all) and receives features and
        trainable rows in one tensor (all-to-all).
        """
        distinct, inverse = torch.unique(items, return_inverse=True)
        if len(distinct) and distinct[0] == PADDING:
            distinct = distinct[1:]
            inverse = torch.where(inverse == 0, len(distinct), inverse - 1)
        sent = self.partition.counts(distinct)
        received = self._communicator.exchange_counts(sent)
        requested = self._communicator.exchange(distinct, sent, received) - self.first_row
        answer = self._looked_up.index_select(0, requested)
        gathered = self._communicator.exchange(answer, received, sent)  # [distinct, feature_dim + trainable_dim]
        return self._as_rows(gathered, inverse, requested, sent, received)

    def local_rows(self, rows: torch.Tensor) -> Rows:
        """Rows of this rank by their numbers [count] within its range, without an exchange; they may repeat."""
        gathered = self._looked_up.index_select(0, rows)  # [count, feature_dim + trainable_dim]
        return self._as_rows(gathered, torch.arange(len(rows), device=rows.device), rows, [], [])

    def local_block(self, start: int, stop: int) -> Rows:
        """The rows [start, stop) of this rank, without an exchange or a copy: they must not change while in use."""
        rows = torch.arange(start, stop, device=self.trainable.device)
        leaf = self.trainable[start:stop].detach().requires_grad_()
        return Rows(self.features[start:stop], leaf, rows - start, rows, [], [])

    def collect_gradient(self, rows: Rows) -> None:
        """Send the gradients of looked-up rows to their owners, who keep them until `update`. A collective."""
        gradient = rows.trainable.grad
        if gradient is None:
            gradient = torch.zeros_like(rows.trainable)
        rows.trainable.grad = None  # so that only one copy is kept
        if rows.sent:
            gradient = self._communicator.exchange(gradient, rows.sent, rows.received)
        self._pending.append((rows.requested, gradient))

    def update(self, learning_rate: float, max_grad_norm: float | None = None) -> Update:
        """Average the collected gradients over the ranks and take one optimizer step on the rows they touch.

        The gradients of all ranks and micro-batches are summed per row and divided by the world size, as the
        engine does with the dense weights. A collective if `max_grad_norm` is given.
        """
        touched = [rows for rows, _ in self._pending]
        rows, position = torch.unique(torch.cat(touched), return_inverse=True)
        gradient = self.trainable.new_zeros(len(rows), self.trainable.shape[1])
        for places in position.split([len(part) for part in touched]):
            _add_rows(gradient, places, self._pending.pop(0)[1])  # frees each gradient after adding it
        gradient /= self._communicator.world_size
        square = torch.linalg.vector_norm(gradient).square()
        if max_grad_norm is not None:
            self._communicator.all_reduce(square)
            gradient *= torch.clamp(max_grad_norm / (square.sqrt() + 1e-6), max=1.0)
        self.optimizer.steps += 1
        block = CPU_UPDATE_ROWS if gradient.device.type == "cpu" else GPU_UPDATE_ROWS
        for chosen, part in zip(rows.split(block), gradient.split(block), strict=True):
            state = self._state.index_select(0, chosen)  # [rows, 3 · trainable_dim]
            self.optimizer.update(state, part, learning_rate)
            self._state.index_copy_(0, chosen, state)
        return Update(len(rows), float(square.sqrt()))

    def _as_rows(
        self,
        gathered: torch.Tensor,
        inverse: torch.Tensor,
        requested: torch.Tensor,
        sent: list[int],
        received: list[int],
    ) -> Rows:
        features, trainable = gathered.tensor_split([self.features.shape[1]], dim=1)
        leaf = trainable.detach().clone().requires_grad_()
        return Rows(features, leaf, inverse, requested, sent, received)


def _add_rows(total: torch.Tensor, places: torch.Tensor, rows: torch.Tensor) -> None:
    """Add each of `rows` [count, dim] to the row of `total` at its place [count], in the order of `rows`: the sums are
    equal to the last bit whenever they are repeated."""
    if total.device.type == "cpu":
        total.index_add_(0, places, rows)
    else:
        # On CUDA `index_add_` adds in any order; this sorts by place and sums each segment by itself.
        total.index_put_((places,), rows, accumulate=True)
