"""Users that are ranked again and again, kept in memory: a training does not read the log for every validation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from alphafuse.data.sequences import Sequences, Split


class UserGroups(Protocol):
    """Sequences of users, some at a time, such as a `SequenceStore`.

    Attributes:
        users: int64, numbers of users whose sum is that of all.
    """

    users: np.ndarray

    def groups(self) -> Iterator[Sequences]:
        """Yields all users in order, group by group."""
        ...


def chosen_within(chosen: np.ndarray, first: int, count: int) -> np.ndarray:
    """The chosen positions in [first, first + count), counted from `first`; `chosen` is ascending."""
    low, high = np.searchsorted(chosen, [first, first + count])
    return chosen[low:high] - first


class KeptUsers:
    """The users of some targets, in the groups in which they were read, so that their targets are ranked in the same
    batches.

    Args:
        read_from: all users; they are read once.
        split: the split that the targets belong to.
        chosen: int64 [targets], ascending: positions among all targets of the split.

    Attributes:
        users: int64 [groups], numbers of kept users.
        chosen: int64 [targets], ascending: positions of the same targets among all those of the kept users.
    """

    def __init__(self, read_from: UserGroups, split: Split, chosen: np.ndarray) -> None:
        self._groups: list[Sequences] = []
        first, first_kept = 0, 0
        places = [np.zeros(0, np.int64)]
        for sequences in read_from.groups():
            users, _ = sequences.targets(split)
            inside, first = chosen_within(chosen, first, len(users)), first + len(users)
            if not len(inside):
                continue
            kept = np.unique(users[inside])
            targets = np.flatnonzero(np.isin(users, kept))  # all of these users, in their order
            places.append(first_kept + np.searchsorted(targets, inside))
            first_kept += len(targets)
            self._groups.append(sequences.take(kept))
        self.chosen = np.concatenate(places)
        self.users = np.array([group.num_users for group in self._groups], np.int64)

    def groups(self) -> Iterator[Sequences]:
        """Yields the kept users in order, group by group."""
        yield from self._groups
