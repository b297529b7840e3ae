"""Sums of rows that belong together, in an order that the host has planned.

Gathering rows that repeat has such a sum as its backward pass, and so have the gradients that several ranks send to
the owner of a row. The device sorts nothing, finds out no size, and adds the rows of a sum in ascending order, so
that sums are equal to the last bit whenever they are repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_SUM = 0
"""Mode of `_embedding_bag_forward_only` that adds the rows of a bag."""


@dataclass(frozen=True)
class Groups:
    """Equal numbers among some numbers.

    Attributes:
        values: int64 [groups], the distinct numbers, ascending.
        order: int64 [numbers], positions of the numbers, group after group and ascending within a group.
        starts: int64 [groups], start of each group in `order`.
    """

    values: np.ndarray
    order: np.ndarray
    starts: np.ndarray

    def places(self) -> np.ndarray:
        """The group of each number: int64 [numbers]."""
        sizes = np.diff(self.starts, append=len(self.order))
        places = np.empty(len(self.order), np.int64)
        places[self.order] = np.repeat(np.arange(len(self.values)), sizes)
        return places


def group_equal(numbers: np.ndarray) -> Groups:
    """Group equal numbers, int64 [numbers] from 0 to 2³¹ − 1."""
    # One sort of plain integers, each a number with its position behind it, is several times faster than an argsort.
    keys = np.sort((numbers << 32) | np.arange(len(numbers)))
    ascending = keys >> 32
    starts = np.flatnonzero(np.diff(ascending, prepend=-1))
    return Groups(ascending[starts], keys & (2**32 - 1), starts)


@dataclass(frozen=True)
class RowSums:
    """Sums over groups of rows.

    Attributes:
        order: int64 [rows], positions of the rows, group after group.
        starts: int64 [groups], start of each group in `order`; a group may be empty.
    """

    order: torch.Tensor
    starts: torch.Tensor

    @classmethod
    def of(cls, groups: Groups) -> RowSums:
        """Sums over the groups of equal numbers."""
        return cls(torch.from_numpy(groups.order), torch.from_numpy(groups.starts))

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Sum rows [rows, dim]: [groups, dim]."""
        groups = self.starts.shape[0]  # `len` would make a constant of it where a graph is traced
        if rows.shape[0] == 0 or groups == 0:
            return rows.new_zeros(groups, rows.shape[1])
        summed: torch.Tensor = torch.ops.aten._embedding_bag_forward_only(
            rows.contiguous(), self.order, self.starts, False, _SUM
        )[0]
        return summed


@dataclass(frozen=True)
class Gathering:
    """Gathers rows, which may repeat or be left out.

    Attributes:
        places: int64 [gathered], the row of each.
        sums: the sums of gradients, [gathered, dim] → [rows, dim], that are the backward pass.
    """

    places: torch.Tensor
    sums: RowSums

    @classmethod
    def at(cls, chosen: np.ndarray) -> Gathering:
        """Gather the rows at which `chosen`, bool [rows], is true."""
        places = np.flatnonzero(chosen)
        before = np.cumsum(chosen) - chosen  # of each row: the number of those gathered before it
        return cls(torch.from_numpy(places), RowSums(torch.arange(len(places)), torch.from_numpy(before)))

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Gather from rows [rows, dim]: [gathered, dim]."""
        return gather(rows, self.places, self.sums.order, self.sums.starts)


def gather(rows: torch.Tensor, places: torch.Tensor, order: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """See `Gathering`."""
    gathered: torch.Tensor = _Gather.apply(rows, places, order, starts)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, places: torch.Tensor, order: torch.Tensor, starts: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(order, starts)
        if rows.shape[0] == 0:  # nothing but padding
            return rows.new_zeros(places.shape[0], rows.shape[1])
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return RowSums(*ctx.saved_tensors)(gradient), None, None, None
