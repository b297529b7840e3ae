"""A log of any size that is made when it is read: users with the item indices that `prepare` would give them.

Stands for `SequenceStore`. A block of users depends on its number alone, and nothing is kept, so that a log of any
length takes no memory. The k-th most popular item is taken in proportion to 1 / k (Zipf); where it lies in the table
follows a hash, as `prepare` orders items by the hash of their id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from alphafuse.data.hashing import bucket_of
from alphafuse.data.sequences import Sequences

BLOCK_USERS = 8192
SHORTEST = 5


class MadeUpLog:
    """Users with `SHORTEST` to 2 · `mean_length` − `SHORTEST` items, all of which train.

    Attributes:
        users: int64 [blocks], number of users in each block.
    """

    def __init__(self, num_items: int, num_users: int, mean_length: int) -> None:
        self._num_items, self._longest = num_items, 2 * mean_length - SHORTEST
        starts = np.arange(0, num_users, BLOCK_USERS)
        self.users = np.minimum(num_users - starts, BLOCK_USERS)

    def __len__(self) -> int:
        return len(self.users)

    def trained_lengths(self) -> Iterator[np.ndarray]:
        """Yield the numbers of items of the users of each block: int64 [users of the block]."""
        for block in range(len(self)):
            yield self._block(block)[1]

    def read(self, blocks: Sequence[int]) -> Sequences:
        """The users of some blocks, in the order of the blocks."""
        items, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for block in blocks:
            generator, counts = self._block(block)
            items.append(popular_items(generator, int(counts.sum()), self._num_items))
            lengths.append(counts)
        ends = np.concatenate(lengths)
        starts, names = np.concatenate([[0], np.cumsum(ends)]), pa.chunked_array([pa.nulls(len(ends), pa.string())])
        return Sequences(np.concatenate(items), starts, ends, ends, names)

    def _block(self, block: int) -> tuple[np.random.Generator, np.ndarray]:
        generator = np.random.default_rng(block)
        return generator, generator.integers(SHORTEST, self._longest + 1, int(self.users[block]))


def popular_items(generator: np.random.Generator, count: int, num_items: int) -> np.ndarray:
    """Draw item indices in proportion to the items' popularity: int64 [count]."""
    order = np.exp(generator.random(count) * np.log(num_items)).astype(np.uint64)  # 1 is the most popular item
    # SplitMix64 (Steele et al. 2014) in the place of the hash of an id.
    mixed = order * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bucket_of(mixed ^ (mixed >> np.uint64(31)), num_items)
