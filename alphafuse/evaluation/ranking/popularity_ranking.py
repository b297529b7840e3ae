"""Ranks items by how often they were taken, the same for everybody: what every model has to beat.

Ties, seen items and the place of the target follow the rules of `alphafuse.evaluation.ranking.catalog_ranking`.
"""

from __future__ import annotations

import numpy as np
import torch

from alphafuse.evaluation.ranking.exclusions import excluded_pairs
from alphafuse.evaluation.ranking.item_tiles import ItemTiles


class PopularityRanking:
    """The ranking of all items by a count; of equal ones the lower item index comes first.

    Args:
        counts: int64 [items].
    """

    def __init__(self, counts: np.ndarray) -> None:
        place = np.empty(len(counts), np.int64)
        place[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        self._place = torch.from_numpy(place)
        self._all_items = ItemTiles(0, len(counts), max(1, len(counts)))

    def ranks(self, targets: np.ndarray, excluded: torch.Tensor | None) -> np.ndarray:
        """Find the ranks of targets, best is 1: int64 [queries].

        Args:
            targets: int64 [queries], item indices.
            excluded: as in `Queries.excluded`, on the CPU; None: nothing is left out.
        """
        wanted = torch.from_numpy(targets)
        places = self._place[wanted]
        ranks = places + 1
        if excluded is not None:
            for query, item in excluded_pairs(excluded, len(targets), wanted, self._all_items):
                before = self._place[item] < places[query]
                ranks -= torch.bincount(query[before], minlength=len(ranks))
        return ranks.numpy()
