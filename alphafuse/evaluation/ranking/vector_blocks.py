"""Vectors of consecutive items that lie in several places, such as memory-mapped files, read as one matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch


class VectorBlocks:
    """A matrix of blocks of rows, none of which is copied. It has the methods of a tensor that a ranking calls.

    Args:
        blocks: float32 [rows of the block, dim] each, one at least; they stand in the order of the rows.
    """

    def __init__(self, blocks: Sequence[torch.Tensor]) -> None:
        self._blocks = list(blocks)
        self._starts = np.cumsum([0, *(len(block) for block in blocks)])  # of each block, and the number of rows
        self.shape = (int(self._starts[-1]), blocks[0].shape[1])

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    @property
    def device(self) -> torch.device:
        return self._blocks[0].device

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """The rows of a slice without a step, a view where they lie in one block; or a copy of the rows of these
        numbers, int64 [chosen]."""
        if isinstance(rows, torch.Tensor):
            return self._chosen(rows)
        start, stop, _ = rows.indices(len(self))
        parts = [
            block[max(start - first, 0) : stop - first]
            for first, block in zip(self._starts.tolist(), self._blocks, strict=False)
            if first < stop and first + len(block) > start
        ]
        return parts[0] if len(parts) == 1 else torch.cat([self._blocks[0][:0], *parts])

    def split(self, size: int) -> Iterator[torch.Tensor]:
        """Yield all rows in order, at most `size` at a time."""
        for block in self._blocks:
            yield from block.split(size)

    def _chosen(self, rows: torch.Tensor) -> torch.Tensor:
        chosen = self._blocks[0].new_empty(len(rows), self.shape[1])
        owners = torch.from_numpy(np.searchsorted(self._starts, rows.numpy(), side="right") - 1)
        for owner in owners.unique().tolist():
            own = owners == owner
            chosen[own] = self._blocks[owner][rows[own] - int(self._starts[owner])]
        return chosen
