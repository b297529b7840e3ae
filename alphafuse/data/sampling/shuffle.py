"""Shuffles the training samples of each epoch, as a stream over a log that may be larger than memory.

An epoch takes the blocks of users in random order, as many at a time as fit into a buffer, and shuffles the samples of
a buffer. The order depends on (seed, epoch) alone and is the same for every rank. It can start at any sample; buffers
before that sample are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from alphafuse.data.sampling.samples import Samples, Windowing, training_samples
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.storage.read_ahead import read_ahead

_BLOCKS, _SAMPLES = range(2)  # streams of random numbers


class Buffer(NamedTuple):
    """Samples in memory, and the order of those that are still to come in the epoch: int64 [left]."""

    samples: Samples
    order: np.ndarray


class SampleStream:
    """All training samples of a workspace, epoch after epoch.

    The constructor reads one number per user, the number of training items.

    Args:
        buffer_users: number of users in memory at a time, at least those of one block; the next buffer is read while
            one is in use. A log with fewer users is read once and shuffled as a whole.
    """

    def __init__(self, store: SequenceStore, windowing: Windowing, buffer_users: int, seed: int) -> None:
        self._store, self._windowing, self._buffer_users, self._seed = store, windowing, buffer_users, seed
        self._counts = np.array([windowing.count(lengths).sum() for lengths in store.trained_lengths()], np.int64)
        self._held: tuple[list[int], Samples] | None = None

    def __len__(self) -> int:
        return int(self._counts.sum())

    def buffers(self, epoch: int, first_sample: int) -> Iterator[Buffer]:
        """Yield the buffers of an epoch from a sample on. The next buffer is read in the background."""
        return read_ahead(self._buffers(epoch, first_sample))

    def _buffers(self, epoch: int, first_sample: int) -> Iterator[Buffer]:
        start = 0
        for number, blocks in enumerate(self._blocks_of_buffers(epoch)):
            stop = start + int(self._counts[blocks].sum())
            if stop > first_sample:
                order = self._generator(epoch, _SAMPLES, number).permutation(stop - start)
                yield Buffer(self._read(blocks), order[max(first_sample - start, 0) :])
            start = stop

    def _blocks_of_buffers(self, epoch: int) -> list[list[int]]:
        """Blocks of users of each buffer of an epoch."""
        blocks = self._generator(epoch, _BLOCKS).permutation(len(self._store))
        buffers: list[list[int]] = []
        users = 0
        for block, size in zip(blocks.tolist(), self._store.users[blocks].tolist(), strict=True):
            if not buffers or users + size > self._buffer_users:
                buffers.append([])
                users = 0
            buffers[-1].append(block)
            users += size
        return [sorted(buffer) for buffer in buffers]

    def _read(self, blocks: list[int]) -> Samples:
        if self._held is None or self._held[0] != blocks:
            self._held = None  # freed first: only the buffer in use and the new one are in memory
            self._held = blocks, training_samples(self._store.read(blocks).trained(), self._windowing)
        return self._held[1]

    def _generator(self, epoch: int, *place: int) -> np.random.Generator:
        """A generator of its own for each place, so that nothing before that place has to be drawn."""
        return np.random.default_rng([self._seed, epoch, *place])
