"""Finds the items that users have seen before a position, each once, however often a user came back to it.

Memory and time follow the number of different items of a user, not the length of the log times the number of queries.
"""

from __future__ import annotations

import numpy as np
import torch

from alphafuse.data.sequences import Sequences, ranges


class SeenItems:
    """The items of some users with the place where each was seen first.

    Args:
        users: positions in `sequences` of the users that will be asked for, in any order and number.
    """

    def __init__(self, sequences: Sequences, users: np.ndarray) -> None:
        self._sequences = sequences
        lengths = np.zeros(sequences.num_users, np.int64)
        lengths[users] = np.diff(sequences.starts)[users]  # zero for all others
        places = ranges(sequences.starts[:-1], lengths)
        owners = np.repeat(np.arange(sequences.num_users), lengths)
        items = sequences.items[places]
        pairs = owners * (items.max(initial=0) + 1) + items  # one number for a user and an item
        first = np.unique(pairs, return_index=True)[1]
        first.sort()
        self._first = places[first]  # places in `sequences.items`, ascending

    def before(self, users: np.ndarray, positions: np.ndarray) -> torch.Tensor:
        """The items before positions of users, in the form of `Queries.excluded`: int64 [3, exclusions].

        Args:
            users, positions: [queries], the queries in the order of the log: by user, and of one user by position.
        """
        starts = self._sequences.starts
        ends = starts[users] + positions  # [queries], ascending: the place behind each history
        asked = np.unique(users)
        stops = np.searchsorted(users, asked, side="right")  # [users asked for], the query behind a user's last one
        low, high = np.searchsorted(self._first, [starts[asked], ends[stops - 1]])
        places = self._first[ranges(low, high - low)]
        # An item is left out of the first query whose history holds it, and of all later ones of its user.
        first_query = np.searchsorted(ends, places, side="right")
        stop_query = np.repeat(stops, high - low)
        return torch.from_numpy(np.stack([self._sequences.items[places], first_query, stop_query]))
