"""Plans of a step's work on the item table, made on the host: which rows travel where, and how gradients add up.

Item indices are numpy arrays from the start, so everything that a device would have to sort or to count is known
before the step begins. Counts and ids travel between hosts; the rows themselves are the item table's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.row_partition import RowPartition
from alphafuse.items.row_sums import Gathering, RowSums, group_equal

PADDING = -1


@dataclass(frozen=True)
class LookupPlan:
    """Plan of one lookup.

    Attributes:
        requested: int64 [rows], the rows that this rank must answer for, as numbers within its own range, in the order
            in which the ranks asked for them.
        gathering: from the distinct rows, in ascending order of the items, to the items that are looked up. Padding
            takes any row and adds to no sum.
        sent, received: numbers of rows that this rank asks each rank for, and that each rank asks it for.
    """

    requested: torch.Tensor
    gathering: Gathering
    sent: list[int]
    received: list[int]

    @property
    def distinct(self) -> int:
        """Number of distinct rows that are looked up."""
        return sum(self.sent)


@dataclass(frozen=True)
class UpdatePlan:
    """Plan of the update that follows some lookups.

    Attributes:
        rows: int64 [touched], the rows of this rank that have a gradient, ascending.
        sums: from the gradients of all lookups, one after the other, to those of the rows; None where they are equal.
    """

    rows: torch.Tensor
    sums: RowSums | None


def plan_lookup(items: np.ndarray, partition: RowPartition, communicator: Communicator) -> LookupPlan:
    """Plan the lookup of `items` (int64, any shape, −1 pads). A collective: each rank sends the distinct item indices
    to their owners."""
    flat = items.ravel()
    present = np.flatnonzero(flat != PADDING)
    groups = group_equal(flat[present])
    places = np.zeros(len(flat), np.int64)
    places[present] = groups.places()
    sums = RowSums(torch.from_numpy(present[groups.order]), torch.from_numpy(groups.starts))
    sent = partition.counts(groups.values)
    received = communicator.exchange_counts(sent)
    asked = communicator.exchange(torch.from_numpy(groups.values), sent, received)
    first_row, _ = partition.range(communicator.rank)
    return LookupPlan(asked - first_row, Gathering(torch.from_numpy(places), sums), sent, received)


def plan_update(requested: Sequence[torch.Tensor]) -> UpdatePlan:
    """Plan the update after lookups of the rows `requested`, int64 [rows] each."""
    rows = torch.cat(list(requested)).numpy()
    groups = group_equal(rows)
    sums = None if np.array_equal(groups.values, rows) else RowSums.of(groups)
    return UpdatePlan(torch.from_numpy(groups.values), sums)
