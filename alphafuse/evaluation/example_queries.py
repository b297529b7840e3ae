"""A few test queries as examples: what the user had taken, what the model ranked first, and what came next."""

from __future__ import annotations

from typing import Any

import numpy as np

from alphafuse.data.sequences import Sequences
from alphafuse.evaluation.ranking.top_lists import NO_ITEM
from alphafuse.evaluation.ranks import RankedTargets

COUNT = 6
"""Number of examples, each of another user."""
HISTORY = 6
"""Number of the latest items of a history that an example shows."""
LIST = 10
"""Number of ranked items that an example shows."""


class ExampleQueries:
    """Collects the first query of each of the first users.

    Attributes:
        found: the examples as plain values: `user_id`; `history`, the latest items, oldest first; `ranked`, the best
            items, best first; `target`, the item that came next; and its `rank`. Items are item indices.
    """

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def add(self, sequences: Sequences, users: np.ndarray, answers: RankedTargets, items: np.ndarray) -> None:
        """Take what is still needed from a batch of queries.

        Args:
            users: [queries], numbers of the users within `sequences`.
            items: int64 [queries, k], the best items.
        """
        if len(self.found) == COUNT:
            return
        for query in np.unique(users, return_index=True)[1][: COUNT + 1].tolist():
            name = answers.user_ids[query].as_py()
            if len(self.found) < COUNT and (not self.found or self.found[-1]["user_id"] != name):
                position = int(answers.positions[query])
                self.found.append(
                    {
                        "user_id": name,
                        "history": sequences.of(users[query])[max(0, position - HISTORY) : position].tolist(),
                        "ranked": [item for item in items[query, :LIST].tolist() if item != NO_ITEM],
                        "target": int(answers.targets[query]),
                        "rank": int(answers.ranks[query]),
                    }
                )
