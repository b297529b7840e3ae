"""Training samples: stretches of users' training items. Knows nothing of the order they come in, or of models.

`all` positions: a sample is a window in which every item after the first is a target; `last`: one history with one
target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from alphafuse.data.sequences import Sequences

PADDING = -1
Positions = Literal["all", "last"]


@dataclass(frozen=True)
class Samples:
    """The samples of some users: targets are the positions [first_target, first_target + num_targets) of a user."""

    sequences: Sequences
    users: np.ndarray
    first_targets: np.ndarray
    num_targets: np.ndarray
    length: int
    positions: Positions

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


def samples_per_user(train_end: np.ndarray, length: int, positions: Positions) -> np.ndarray:
    """How many samples the training targets of each user make: int64 [users]."""
    targets = np.maximum(train_end - 1, 0)  # positions 1 … train_end − 1
    return targets if positions == "last" else -(-targets // length)


def training_samples(sequences: Sequences, length: int, positions: Positions) -> Samples:
    """The samples of the training targets (docs/workspace.md).

    Args:
        length: longest history. With `all`, users with more targets than that get several windows that end where
            the next begins, the latest one full: every target occurs once.
    """
    if positions == "last":
        users, targets = sequences.targets("train")
        return Samples(sequences, users, targets, np.ones_like(users), length, positions)
    windows = samples_per_user(sequences.train_end, length, positions)
    users = np.repeat(np.arange(sequences.num_users), windows)
    from_end = np.repeat(np.cumsum(windows), windows) - 1 - np.arange(len(users))  # 0: the user's latest window
    stops = sequences.train_end[users] - from_end * length
    starts = np.maximum(stops - length, 1)
    return Samples(sequences, users, starts, stops - starts, length, positions)
