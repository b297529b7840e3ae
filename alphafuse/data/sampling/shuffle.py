"""The order of the training samples in each epoch: a shuffle that streams over a log larger than memory.

An epoch takes the blocks of users in random order and as many of them at a time as fit a buffer; the samples of a
buffer are shuffled as a whole. The order depends on (seed, epoch) alone, is the same for every rank, and can be entered
at any sample: buffers before it are never read.
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
    """Samples in memory, and those of them that are still to come in the epoch, in their order: int64 [left]."""

    samples: Samples
    order: np.ndarray


class SampleStream:
    """All training samples of a workspace, epoch after epoch.

    Opening reads one number per user, that of its training items.

    Args:
        buffer_users: users in memory at a time, at least those of one block; while a buffer is used, the next one is
            read. A log with fewer users is read once and shuffled as a whole.
    """

    def __init__(self, store: SequenceStore, windowing: Windowing, buffer_users: int, seed: int) -> None:
        self._store, self._windowing, self._buffer_users, self._seed = store, windowing, buffer_users, seed
        self._counts = np.array([windowing.count(lengths).sum() for lengths in store.trained_lengths()], np.int64)
        self._held: tuple[list[int], Samples] | None = None

    def __len__(self) -> int:
        return int(self._counts.sum())

    def buffers(self, epoch: int, first_sample: int) -> Iterator[Buffer]:
        """The buffers of an epoch from a sample on. The next one is read in the background."""
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
        """The blocks of each buffer of an epoch."""
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
            self._held = None  # two buffers are in memory: this one, and the one in use
            self._held = blocks, training_samples(self._store.read(blocks).trained(), self._windowing)
        return self._held[1]

    def _generator(self, epoch: int, *place: int) -> np.random.Generator:
        """A stream of its own for each place, to be had without drawing what lies before it."""
        return np.random.default_rng([self._seed, epoch, *place])
