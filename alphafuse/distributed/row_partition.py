"""Partition of the item table's rows: each rank owns one contiguous range.

Item indices follow a hash of the item id (see `alphafuse.data.preparation.catalog`), so equal ranges carry equal
load and a change of world size only moves the cuts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RowPartition:
    """`num_rows` rows over `world_size` ranks; ranges differ by one row at most, and may be empty."""

    num_rows: int
    world_size: int

    def range(self, rank: int) -> tuple[int, int]:
        """First row and end of the rows that `rank` owns."""
        return rank * self.num_rows // self.world_size, (rank + 1) * self.num_rows // self.world_size

    def counts(self, sorted_rows: np.ndarray) -> list[int]:
        """Count how many of the ascending row numbers [rows] each rank owns."""
        cuts = [self.range(rank)[0] for rank in range(1, self.world_size)]
        edges = np.searchsorted(sorted_rows, cuts).tolist()
        return [end - start for start, end in zip([0, *edges], [*edges, len(sorted_rows)], strict=True)]
