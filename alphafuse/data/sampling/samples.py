"""Makes training samples: windows of the users' training items. Knows nothing of their order, or of models.

A window is a history; the targets are the items that follow its last items. Every training target belongs to exactly
one window. A window overlaps the one before it, so that its first target has a history too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from alphafuse.config import TrainConfig
from alphafuse.data.sequences import Sequences

PADDING = -1


@dataclass(frozen=True)
class Windowing:
    """The rule that cuts the training targets of a user into windows.

    Attributes:
        length: longest history.
        first_targets: most targets of a user's first window, which starts with the user's first item.
        new_targets: number of targets of every further window; they are its last ones.
    """

    length: int
    first_targets: int
    new_targets: int

    @classmethod
    def of(cls, config: TrainConfig, length: int) -> Self:
        """The rule that `train.positions` and `train.overlap` describe."""
        if config.positions == "last":
            return cls(length, 1, 1)
        return cls(length, length, max(length - round(config.overlap * length), 1))

    def count(self, train_end: np.ndarray) -> np.ndarray:
        """Number of windows of each user: int64 [users]."""
        targets = np.maximum(train_end - 1, 0)  # positions 1 … train_end − 1
        further = -(-np.maximum(targets - self.first_targets, 0) // self.new_targets)
        return np.where(targets > 0, 1 + further, 0)


@dataclass(frozen=True)
class Samples:
    """Windows of some users; the targets of a window are the positions [first_target, stop), int64 [samples] each."""

    sequences: Sequences
    users: np.ndarray
    first_target: np.ndarray
    stop: np.ndarray
    length: int

    def __len__(self) -> int:
        return len(self.users)

    def num_targets(self, chosen: np.ndarray) -> int:
        """Number of targets of the chosen samples together."""
        return int((self.stop[chosen] - self.first_target[chosen]).sum())

    def arrays(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Histories and targets, both int64 [samples, length] padded with −1, of the chosen samples."""
        users, stop = self.users[chosen, None], self.stop[chosen, None]
        # Position of the item that follows each item of the history.
        position = np.maximum(stop - self.length, 1) + np.arange(self.length)
        inside = position < stop
        index = np.where(inside, self.sequences.starts[users] + position, 1)
        histories = np.where(inside, self.sequences.items[index - 1], PADDING)
        wanted = inside & (position >= self.first_target[chosen, None])
        return histories, np.where(wanted, self.sequences.items[index], PADDING)


def training_samples(sequences: Sequences, windowing: Windowing) -> Samples:
    """Make the samples of all training targets (docs/workspace.md). A user's last window ends with the last target."""
    windows = windowing.count(sequences.train_end)
    users = np.repeat(np.arange(sequences.num_users), windows)
    from_end = np.repeat(np.cumsum(windows), windows) - 1 - np.arange(len(users))  # 0: the user's last window
    stop = sequences.train_end[users] - from_end * windowing.new_targets
    is_first = from_end == windows[users] - 1
    return Samples(sequences, users, np.where(is_first, 1, stop - windowing.new_targets), stop, windowing.length)
