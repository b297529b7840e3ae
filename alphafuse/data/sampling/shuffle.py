"""Shuffles the training samples of each epoch, as a stream over a log that may be larger than memory.

An epoch takes the blocks of users in random order, as many at a time as fit into a buffer, and shuffles the samples of
a buffer: the samples of each lane, in which `LaneOrder` takes turns. A rank reads the blocks of its lanes alone. The
order depends on (seed, epoch) and not on the number of ranks. It can start at any sample; buffers before that sample
are not read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from alphafuse.data.sampling.counter import WORDS_PER_COUNTER
from alphafuse.data.sampling.lanes import LANES, LaneOrder, lanes_of
from alphafuse.data.sampling.samples import Samples, Windowing, training_samples
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.data.sequences import ranges
from alphafuse.storage.filesystem.read_ahead import read_ahead

LANE_SAMPLES = 64
"""Fewest samples of a lane in a log that ranks divide. Every rank reads all of a smaller log, which takes no time, so
that its samples are shuffled as a whole: a lane of some samples would hardly shuffle them."""
_BLOCKS, _SAMPLES, _SHIFT = range(3)  # streams of random numbers


class Buffer:
    """A rank's share of the samples that are shuffled together.

    Attributes:
        first, stop: places of the buffer's samples in the order of the epoch, over all ranks.
        samples: samples in memory, of which some may belong to other ranks.
        lanes: the rank's lanes.
    """

    def __init__(self, samples: Samples, numbers: np.ndarray, order: LaneOrder, first: int, lanes: slice) -> None:
        self.first, self.stop = first, first + order.samples
        self.samples = samples
        self.lanes = lanes
        self._numbers = numbers  # of the rank's samples among `samples`, lane after lane: int64 [samples of the rank]
        self._order = order
        self._reached = (0, np.zeros(LANES, np.int64))  # a place and its cursors

    def between(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The samples at the places [first, stop) of the epoch that lie in this buffer.

        Returns:
            Numbers of this rank's ones in `samples`, lane after lane, int64 [samples of the rank]; and how many ones
            each lane has, of all ranks, int64 [LANES].
        """
        begin = self._cursors(first)
        counts = self._cursors(stop) - begin
        starts = (self._order.starts[:-1] + begin)[self.lanes] - self._order.starts[self.lanes.start]
        return self._numbers[ranges(starts, counts[self.lanes])], counts

    def _cursors(self, place: int) -> np.ndarray:
        place = min(max(place - self.first, 0), self._order.samples)
        if self._reached[0] != place:
            self._reached = place, self._order.cursors(place)
        return self._reached[1]


class SampleStream:
    """All training samples of a workspace, epoch after epoch.

    The constructor reads one number per user, the number of training items.

    Args:
        buffer_users: number of users in the memory of all ranks at a time, at least those of one block; the next buffer
            is read while one is in use. A log with fewer users is read once: its lanes are the same in every epoch.
    """

    def __init__(self, store: SequenceStore, windowing: Windowing, buffer_users: int, seed: int) -> None:
        self._store, self._windowing, self._buffer_users, self._seed = store, windowing, buffer_users, seed
        self._counts = np.array([windowing.count(lengths).sum() for lengths in store.trained_lengths()], np.int64)
        self._is_small = store.users.sum() <= buffer_users and len(self) < LANES * LANE_SAMPLES
        self._held: tuple[list[int], Samples] | None = None

    def __len__(self) -> int:
        return int(self._counts.sum())

    def buffers(self, epoch: int, first_sample: int, rank: int, world_size: int) -> Iterator[Buffer]:
        """Yield a rank's shares of the buffers of an epoch, from that of a sample on. The next one is read in the
        background."""
        return read_ahead(self._buffers(epoch, first_sample, lanes_of(rank, world_size)))

    def _buffers(self, epoch: int, first_sample: int, lanes: slice) -> Iterator[Buffer]:
        first = 0
        for number, blocks in enumerate(self._blocks_of_buffers(epoch)):
            size = int(self._counts[blocks].sum())
            if size and first + size > first_sample:
                order = LaneOrder(size, self._generator(epoch, _SHIFT, number).random())
                yield Buffer(*self._share(epoch, number, blocks, order, lanes), order, first, lanes)
            first += size

    def _share(
        self, epoch: int, number: int, blocks: list[int], order: LaneOrder, lanes: slice
    ) -> tuple[Samples, np.ndarray]:
        """Read the samples of some lanes of a buffer; returns them with their shuffled numbers, lane after lane."""
        first, stop = order.starts[lanes.start], order.starts[lanes.stop]
        if self._is_small:
            return self._read(blocks), self._generator(epoch, _SAMPLES, number).permutation(order.samples)[first:stop]
        if first == stop:
            return self._read([]), np.zeros(0, np.int64)
        ends = np.cumsum(self._counts[blocks])
        low, high = np.searchsorted(ends, [first, stop - 1], side="right")
        # Sorted by their lane, in the upper 10 bits, and a random number that depends on a sample's place on the line.
        lane = np.repeat(np.arange(LANES), np.diff(order.starts))[first:stop].astype(np.uint64)
        drawn = self._words(int(first), int(stop), epoch, _SAMPLES, number)
        shuffled = np.argsort((lane << np.uint64(54)) | (drawn >> np.uint64(10)))
        before = ends[low] - self._counts[blocks[low]]  # samples of the buffer in blocks that are not read
        return self._read(blocks[low : high + 1]), first - before + shuffled

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

    def _words(self, first: int, stop: int, *place: int) -> np.ndarray:
        """Random words of the positions [first, stop) of a stream: uint64 [stop − first]."""
        generator, skipped = np.random.Philox(np.random.SeedSequence([self._seed, *place])), first % WORDS_PER_COUNTER
        generator.advance(first // WORDS_PER_COUNTER)
        return generator.random_raw(stop - first + skipped)[skipped:]

    def _generator(self, epoch: int, *place: int) -> np.random.Generator:
        """A generator of its own for each place, so that nothing before that place has to be drawn."""
        return np.random.default_rng([self._seed, epoch, *place])
