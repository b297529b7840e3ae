"""Item sequences of users in memory: flat arrays, with the positions that train, validate and test
(docs/workspace.md).

Knows nothing of storage, batches or models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Sequences:
    """The sequences of some users.

    Attributes:
        items: [interactions], item indices, user after user, in time order.
        starts: [users + 1], where each user's items begin in `items`.
        train_end, validation_end: [users], where the training and the validation targets of a user end
            (docs/workspace.md).
        user_ids: [users], as they stand in the log.
        held_out: [interactions] of bool, True for those that must not train; None: all before `train_end` train.
        recent_start: [users], where a user's recent interactions begin; None where nothing is known of their times, or
            they were not asked for.
    """

    items: np.ndarray
    starts: np.ndarray
    train_end: np.ndarray
    validation_end: np.ndarray
    user_ids: pa.ChunkedArray
    held_out: np.ndarray | None = None
    recent_start: np.ndarray | None = None

    @property
    def num_users(self) -> int:
        return len(self.starts) - 1

    def of(self, user: int) -> np.ndarray:
        """Items of one user, in time order."""
        return self.items[self.starts[user] : self.starts[user + 1]]

    def take(self, users: np.ndarray) -> Sequences:
        """Some of the users, in the given order: [users kept] numbers of users."""
        lengths = np.diff(self.starts)[users]
        places = ranges(self.starts[users], lengths)
        return Sequences(
            items=self.items[places],
            starts=np.concatenate([[0], np.cumsum(lengths)]),
            train_end=self.train_end[users],
            validation_end=self.validation_end[users],
            user_ids=self.user_ids.take(pa.array(users)),
            held_out=None if self.held_out is None else self.held_out[places],
            recent_start=None if self.recent_start is None else self.recent_start[users],
        )

    def trained(self) -> Sequences:
        """The same users with their training items alone: those before `train_end` that are not held out."""
        return self._trained_from(np.zeros(self.num_users, np.int64))

    def recently_trained(self) -> Sequences:
        """The same users with their recent training items alone; without any where nothing is known of the times."""
        return self._trained_from(self.train_end if self.recent_start is None else self.recent_start)

    def _trained_from(self, first: np.ndarray) -> Sequences:
        """The same users with their training items alone, from a position of each user on."""
        lengths = np.diff(self.starts)
        users = np.repeat(np.arange(self.num_users), lengths)
        positions = np.arange(len(self.items)) - self.starts[users]
        trains = (positions >= first[users]) & (positions < self.train_end[users])
        if self.held_out is not None:
            trains &= ~self.held_out
        counts = np.bincount(users[trains], minlength=self.num_users)
        return Sequences(self.items[trains], np.concatenate([[0], np.cumsum(counts)]), counts, counts, self.user_ids)

    def targets(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Users and positions of all targets of a split, user after user; the history of position t is items[:t]."""
        lengths = np.diff(self.starts)
        first, last = {
            "train": (np.ones_like(lengths), self.train_end),
            "validation": (self.train_end, self.validation_end),
            "test": (self.validation_end, lengths),
        }[split]
        first = np.maximum(first, 1)
        counts = np.maximum(last - first, 0)
        return np.repeat(np.arange(self.num_users), counts), ranges(first, counts)

    def histories(self, users: np.ndarray, positions: np.ndarray, length: int) -> np.ndarray:
        """The latest items before each position, oldest first, padded with −1 at the end: [targets, length]."""
        kept = np.minimum(positions, length)
        offsets = np.arange(length)
        index = (self.starts[users] + positions - kept)[:, None] + offsets
        valid = offsets < kept[:, None]
        return np.where(valid, self.items[np.where(valid, index, 0)], -1)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers of several ranges, one range after the other: int64 [sum of the lengths]."""
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
