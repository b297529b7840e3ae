"""The item table: frozen features and trainable rows of all items, partitioned by rows across the ranks.

A lookup gathers whatever rows a step needs in one exchange, and the update sends their gradients back to the
owners, so traffic and memory of a step depend on the batch and not on the catalog. Who sends what was planned on the
host (`lookup_plan`). The table knows nothing of what the rows mean; the encoder does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.host_arrays import to_device
from alphafuse.distributed.row_partition import RowPartition
from alphafuse.items.lookup_plan import LookupPlan, UpdatePlan, plan_lookup
from alphafuse.items.row_adam import RowAdam
from alphafuse.kernels.device import runs_kernels
from alphafuse.kernels.row_update import STATE_VALUES, sum_and_update_rows, update_rows


@dataclass(frozen=True)
class Rows:
    """Rows that a step works on.

    Attributes:
        features: [rows, feature_dim], frozen.
        trainable: [rows, trainable_dim], a leaf that collects the gradient.
        plan: the lookup that gathered them; None for rows of this rank that were read in place.
    """

    features: torch.Tensor
    trainable: torch.Tensor
    plan: LookupPlan | None = None

    def gather(self, encoded: torch.Tensor) -> torch.Tensor:
        """Spread encoded rows [rows, dim] over the items that were looked up: [items, dim], arbitrary for padding."""
        assert self.plan is not None
        return self.plan.gathering(encoded)


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
        self._pending: list[torch.Tensor] = []

    def plan(self, items: np.ndarray) -> LookupPlan:
        """Plan the lookup of `items` (int64, any shape, −1 pads) by this rank, on its device. A collective."""
        return to_device(plan_lookup(items, self.partition, self._communicator), self.trainable.device)

    def lookup(self, plan: LookupPlan) -> Rows:
        """Gather the rows of a plan: their owners send features and trainable rows in one tensor (all-to-all). A
        collective: every rank must call it."""
        answer = self._looked_up.index_select(0, plan.requested)
        gathered = self._communicator.exchange(answer, plan.received, plan.sent)  # [distinct, feature + trainable dim]
        return self._as_rows(gathered, plan)

    def local_rows(self, rows: torch.Tensor) -> Rows:
        """Rows of this rank by their numbers [count] within its range, without an exchange; they may repeat."""
        return self._as_rows(self._looked_up.index_select(0, rows), None)

    def local_block(self, start: int, stop: int) -> Rows:
        """The rows [start, stop) of this rank, without an exchange or a copy: they must not change while in use."""
        return Rows(self.features[start:stop], self.trainable[start:stop].detach().requires_grad_())

    def collect_gradient(self, rows: Rows) -> None:
        """Send the gradients of rows to their owners, who keep them until `update`. A collective."""
        gradient = rows.trainable.grad
        if gradient is None:
            gradient = torch.zeros_like(rows.trainable)
        rows.trainable.grad = None  # so that only one copy is kept
        if rows.plan is not None:
            gradient = self._communicator.exchange(gradient, rows.plan.sent, rows.plan.received)
        self._pending.append(gradient)

    def update(
        self, plan: UpdatePlan, learning_rate: float, max_grad_norm: float | None = None, measured: bool = True
    ) -> torch.Tensor | None:
        """Average the collected gradients over the ranks and take one optimizer step on the rows they touch.

        The gradients of all ranks and micro-batches are summed per row and divided by the world size, as the
        engine does with the dense weights. A collective if `max_grad_norm` is given.

        Args:
            plan: plan for the lookups whose gradients were collected, in the same order.
            measured: compute the norm also where it is not clipped.

        Returns:
            Where it is computed, the square of the norm of the table's gradient before clipping, a scalar: over all
            ranks where it is clipped, else over this rank's rows.
        """
        gradient = self._pending[0] if len(self._pending) == 1 else torch.cat(self._pending)
        self._pending.clear()
        adam, world_size = self.optimizer.next_step(learning_rate), self._communicator.world_size
        if max_grad_norm is None and runs_kernels(gradient.device):
            sums = None if plan.sums is None else (plan.sums.order, plan.sums.starts)
            return sum_and_update_rows(self._state, plan.rows, gradient, sums, adam, world_size, measured)
        if plan.sums is not None:
            gradient = plan.sums(gradient)  # [touched, trainable_dim]
        if world_size > 1:
            gradient /= world_size
        square = None
        if measured or max_grad_norm is not None:
            square = torch.linalg.vector_norm(gradient).square()
        if square is not None and max_grad_norm is not None:
            self._communicator.all_reduce(square)
            gradient *= torch.clamp(max_grad_norm / (square.sqrt() + 1e-6), max=1.0)
        update_rows(self._state, plan.rows, gradient, adam)
        return square

    def _as_rows(self, gathered: torch.Tensor, plan: LookupPlan | None) -> Rows:
        features, trainable = gathered.tensor_split([self.features.shape[1]], dim=1)
        return Rows(features, trainable.detach().requires_grad_(), plan)
