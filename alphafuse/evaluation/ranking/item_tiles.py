"""Cuts the items of a rank into tiles, which are scored one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ItemTiles:
    """Tiles of consecutive items.

    Attributes:
        first_item: item index of the first item of this rank.
        num_items: number of items of this rank.
        width: number of items of a tile; the last one may hold fewer.
    """

    first_item: int
    num_items: int
    width: int

    def __len__(self) -> int:
        """Number of tiles."""
        return -(-self.num_items // self.width)

    def start(self, tile: int) -> int:
        """Item index of the first item of a tile."""
        return self.first_item + tile * self.width

    def of(self, items: torch.Tensor) -> torch.Tensor:
        """The tile of each item: negative for items of lower ranks, `len(self)` for those of higher ranks."""
        row = items - self.first_item
        return torch.where(row < self.num_items, row // self.width, len(self))
