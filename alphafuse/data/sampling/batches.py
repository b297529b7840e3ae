"""Makes the training batches; the global batches are the same for any number of ranks. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alphafuse.data.sampling.samples import Samples
from alphafuse.data.sampling.shuffle import SampleStream


@dataclass(frozen=True)
class Batch:
    """One rank's part of a micro-batch.

    Attributes:
        histories: int64 [samples, length], padded with −1 at the end.
        targets: int64 [samples, length], the item to predict at each position; −1 where there is none.
        first_sample: position of the first sample in the global batch of the optimizer step.
        targets_per_part: number of targets of the whole optimizer step, divided by the number of its parts (ranks ×
            micro-batches). Dividing each part's sum of losses by it, and averaging over the parts, gives the mean
            over all targets.
    """

    histories: np.ndarray
    targets: np.ndarray
    first_sample: int
    targets_per_part: float


Pieces = list[tuple[Samples, np.ndarray]]
"""Chosen samples, int64 [chosen] each, of one buffer after the other."""


class BatchOrder:
    """Divides the samples of each epoch into steps, and each step into parts.

    A step takes the next `batch_size` samples. Its parts, one for each micro-batch of each rank, are contiguous, and
    their sizes differ by one sample at most. The last step of an epoch may be smaller. So every sample occurs once an
    epoch, and every rank takes the same number of steps.
    """

    def __init__(self, samples: SampleStream, batch_size: int, accumulation: int) -> None:
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.steps_per_epoch = -(-len(samples) // batch_size)
        self._samples = samples

    def epoch(self, epoch: int, first_step: int, rank: int, world_size: int) -> Iterator[list[Batch]]:
        """Yield the micro-batches of one rank for each step of an epoch, from `first_step` on."""
        parts = world_size * self.accumulation
        for pieces in self._steps(epoch, first_step):
            size = sum(len(chosen) for _, chosen in pieces)
            targets = sum(samples.num_targets(chosen) for samples, chosen in pieces)
            batches = []
            for part in range(rank, parts, world_size):
                start, stop = part * size // parts, (part + 1) * size // parts
                histories, wanted = _arrays(pieces, start, stop)
                batches.append(Batch(histories, wanted, start, targets / parts))
            yield batches

    def _steps(self, epoch: int, first_step: int) -> Iterator[Pieces]:
        """Yield the samples of each step; a step may extend from one buffer into the next."""
        pieces: Pieces = []
        missing = self.batch_size
        for samples, order in self._samples.buffers(epoch, first_step * self.batch_size):
            while len(order):
                chosen, order = order[:missing], order[missing:]
                pieces.append((samples, chosen))
                missing -= len(chosen)
                if not missing:
                    yield pieces
                    pieces, missing = [], self.batch_size
        if pieces:
            yield pieces


def _arrays(pieces: Pieces, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Histories and targets of the samples [start, stop) of a step, both int64 [samples, length]."""
    arrays, first = [], 0
    for samples, chosen in pieces:
        arrays.append(samples.arrays(chosen[max(start - first, 0) : max(stop - first, 0)]))
        first += len(chosen)
    histories, targets = zip(*arrays, strict=True)
    return np.concatenate(histories), np.concatenate(targets)
