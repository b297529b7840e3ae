"""Training samples and the order they come in: the same global batches for any number of ranks.

A sample is a stretch of a user's training items: `all` positions, a window in which every item after the first is
a target; `last`, one history with one target. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alphafuse.data.sequences import Sequences

PADDING = -1


@dataclass(frozen=True)
class Batch:
    """One rank's part of a micro-batch.

    Attributes:
        histories: int64 [samples, length], padded with −1 at the end.
        targets: int64 [samples, length], the next item where it is to be predicted, else −1.
        first_sample: position of the first sample in the optimizer step's global batch.
        targets_per_part: targets of the whole optimizer step divided by its parts (ranks × micro-batches): a rank
            that divides its sum of losses by this, and averages over parts, has the mean over all targets.
    """

    histories: np.ndarray
    targets: np.ndarray
    first_sample: int
    targets_per_part: float


@dataclass(frozen=True)
class Samples:
    """All training samples: targets are the positions [first_target, first_target + num_targets) of a user."""

    sequences: Sequences
    users: np.ndarray
    first_targets: np.ndarray
    num_targets: np.ndarray
    length: int
    positions: Literal["all", "last"]

    def __len__(self) -> int:
        return len(self.users)

    def arrays(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Histories and targets, both int64 [samples, length] padded with −1, of the chosen samples."""
        sequences, users, counts = self.sequences, self.users[chosen], self.num_targets[chosen]
        ends = self.first_targets[chosen] + counts - 1  # position of the last target: the history stops before it
        if self.positions == "last":
            histories = sequences.histories(users, ends, self.length)
            targets = np.full_like(histories, PADDING)
            last = np.minimum(ends, self.length) - 1
            targets[np.arange(len(chosen)), last] = sequences.items[sequences.starts[users] + ends]
            return histories, targets
        offsets = np.arange(self.length)
        valid = offsets < counts[:, None]
        index = np.where(valid, (sequences.starts[users] + self.first_targets[chosen])[:, None] + offsets, 1)
        targets = np.where(valid, sequences.items[index], PADDING)
        return np.where(valid, sequences.items[index - 1], PADDING), targets


def training_samples(sequences: Sequences, length: int, positions: Literal["all", "last"]) -> Samples:
    """The samples of the training targets (docs/workspace.md).

    Args:
        length: longest history. With `all`, users with more targets than that get several windows that end where
            the next begins, the latest one full: every target occurs once.
    """
    if positions == "last":
        users, targets = sequences.targets("train")
        return Samples(sequences, users, targets, np.ones_like(users), length, positions)
    totals = np.maximum(sequences.train_end - 1, 0)  # targets of each user: positions 1 … train_end − 1
    windows = -(-totals // length)
    users = np.repeat(np.arange(sequences.num_users), windows)
    from_end = np.repeat(np.cumsum(windows), windows) - 1 - np.arange(len(users))  # 0: the user's latest window
    stops = sequences.train_end[users] - from_end * length
    starts = np.maximum(stops - length, 1)
    return Samples(sequences, users, starts, stops - starts, length, positions)


class BatchOrder:
    """Shuffles the samples by (seed, epoch) and cuts each epoch into steps, steps into parts.

    A step takes the next `batch_size` samples; its parts, one for each micro-batch of each rank, are contiguous and
    differ by one sample at most. The last step of an epoch may be smaller, so every sample occurs once an epoch.
    """

    def __init__(self, samples: Samples, batch_size: int, accumulation: int, seed: int) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.steps_per_epoch = -(-len(samples) // batch_size)
        self._seed = seed

    def epoch(self, epoch: int, first_step: int, rank: int, world_size: int) -> Iterator[list[Batch]]:
        """The micro-batches of each step of an epoch from `first_step` on, for one rank."""
        order = np.random.Generator(np.random.Philox(key=[self._seed, epoch])).permutation(len(self.samples))
        parts = world_size * self.accumulation
        for step in range(first_step, self.steps_per_epoch):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            counts = self.samples.num_targets[chosen].sum()
            batches = []
            for micro in range(self.accumulation):
                part = micro * world_size + rank
                start, stop = part * len(chosen) // parts, (part + 1) * len(chosen) // parts
                histories, targets = self.samples.arrays(chosen[start:stop])
                batches.append(Batch(histories, targets, start, counts / parts))
            yield batches
