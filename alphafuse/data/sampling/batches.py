"""Makes the training batches; the global batches are the same for any number of ranks. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alphafuse.data.sampling.shuffle import Buffer, SampleStream


@dataclass(frozen=True)
class Batch:
    """One rank's part of a micro-batch.

    Attributes:
        histories: int64 [samples, length], padded with −1 at the end.
        targets: int64 [samples, length], the item to predict at each position; −1 where there is none.
        first_sample: position of the first sample in the global batch of the optimizer step, in which micro-batches
            follow one another, and the lanes in each of them.
    """

    histories: np.ndarray
    targets: np.ndarray
    first_sample: int


class BatchOrder:
    """Divides the samples of each epoch into steps, each step into micro-batches, and these into parts of the ranks.

    A step takes the next `batch_size` samples; its micro-batches follow one another, and their sizes differ by one
    sample at most. The last step of an epoch may be smaller. A rank's part is the samples of its lanes: about as many
    for every rank, sometimes none. So every sample occurs once an epoch, and every rank takes the same number of steps.
    """

    def __init__(self, samples: SampleStream, batch_size: int, accumulation: int) -> None:
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.steps_per_epoch = -(-len(samples) // batch_size)
        self._samples = samples

    def epoch(self, epoch: int, first_step: int, rank: int, world_size: int) -> Iterator[list[Batch]]:
        """Yield the micro-batches of one rank for each step of an epoch, from `first_step` on."""
        if first_step >= self.steps_per_epoch:
            return
        buffers = self._samples.buffers(epoch, first_step * self.batch_size, rank, world_size)
        buffer = next(buffers)
        for start in range(first_step * self.batch_size, len(self._samples), self.batch_size):
            size, batches = min(self.batch_size, len(self._samples) - start), []
            for micro in range(self.accumulation):
                first, stop = (start + part * size // self.accumulation for part in (micro, micro + 1))
                parts = [(buffer, *buffer.between(first, stop))]
                while buffer.stop < stop:
                    buffer = next(buffers)
                    parts.append((buffer, *buffer.between(first, stop)))
                batches.append(_batch(parts, first - start))
            yield batches


def _batch(parts: list[tuple[Buffer, np.ndarray, np.ndarray]], first: int) -> Batch:
    """A rank's part of a micro-batch that begins at the position `first` of the global batch.

    Args:
        parts: the micro-batch may extend from one buffer into the next; a buffer, and what its `between` returned.
    """
    lanes = parts[0][0].lanes
    first += sum(int(counts[: lanes.start].sum()) for _, _, counts in parts)
    arrays = [buffer.samples.arrays(chosen) for buffer, chosen, _ in parts]
    if len(arrays) == 1:
        return Batch(*arrays[0], first)
    # Lane after lane, as on any other number of ranks.
    own = np.arange(lanes.start, lanes.stop)
    order = np.argsort(np.concatenate([np.repeat(own, counts[lanes]) for _, _, counts in parts]), kind="stable")
    histories, targets = (np.concatenate(each)[order] for each in zip(*arrays, strict=True))
    return Batch(histories, targets, first)
