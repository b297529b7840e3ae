"""Computes ranking metrics from ranks of targets, and coverage and popularity from top lists, in plain numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

_GAINS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hr": np.ones_like,
    "ndcg": lambda ranks: 1 / np.log2(1 + ranks),
    "mrr": lambda ranks: 1 / ranks,
}


def ranking_metrics(ranks: np.ndarray, cutoffs: Sequence[int]) -> dict[str, float]:
    """Compute HR@K, NDCG@K and MRR@K, as means over queries with one relevant item each.

    Args:
        ranks: [queries], rank of the target, best is 1.

    Returns:
        `hr@K`: share of queries with rank ≤ K; `ndcg@K`: mean of 1 / log2(1 + rank) (the ideal DCG is 1) and
        `mrr@K`: mean of 1 / rank, both 0 beyond K. Without queries all are NaN.
    """
    names = [f"{name}@{cutoff}" for name in _GAINS for cutoff in cutoffs]
    return {name: float(gains(ranks, name).mean()) if len(ranks) else np.nan for name in names}


def gains(ranks: np.ndarray, metric: str) -> np.ndarray:
    """Contribution of each query to a metric, which is the mean of these: float64 [queries].

    Args:
        ranks: [queries], rank of the target, best is 1.
        metric: hr@K, ndcg@K or mrr@K.
    """
    name, _, cutoff = metric.partition("@")
    return np.where(ranks <= int(cutoff), _GAINS[name](ranks.astype(np.float64)), 0)


def measured_cutoffs(metrics: Mapping[str, float]) -> tuple[int, ...]:
    """The cutoffs K of metrics named NAME@K, ascending."""
    return tuple(sorted({int(name.partition("@")[2]) for name in metrics if "@" in name}))


def tail_items(popularity: np.ndarray, tail_share: float) -> np.ndarray:
    """Mask of the tail: the `tail_share` of all items with the fewest interactions; of ties those with higher index.

    Args:
        popularity: [items], training interactions.

    Returns:
        [items] of bool.
    """
    order = np.argsort(-popularity, kind="stable")
    tail = np.ones(len(popularity), bool)
    tail[order[: len(popularity) - round(tail_share * len(popularity))]] = False
    return tail


class CatalogUse:
    """Measures coverage and popularity bias of top lists, batch by batch.

    Args:
        popularity: [items], training interactions.
        tail: [items] of bool.
    """

    def __init__(self, popularity: np.ndarray, tail: np.ndarray, cutoffs: Sequence[int]) -> None:
        self._popularity = popularity
        self._tail = tail
        self._cutoffs = cutoffs
        self._first_place = np.full(len(popularity), np.iinfo(np.int64).max)  # best place of each item in any list
        self._listed = dict.fromkeys(cutoffs, 0)
        self._popularity_sum = dict.fromkeys(cutoffs, 0.0)
        self._tail_sum = dict.fromkeys(cutoffs, 0)

    def add(self, items: np.ndarray) -> None:
        """Count top lists [queries, top_k] of item indices, best first, −1 where a list is shorter."""
        for place in range(items.shape[1]):
            listed = items[:, place][items[:, place] >= 0]
            self._first_place[listed] = np.minimum(self._first_place[listed], place)
            for cutoff in self._cutoffs:
                if place < cutoff:
                    self._listed[cutoff] += len(listed)
                    self._popularity_sum[cutoff] += float(self._popularity[listed].sum())
                    self._tail_sum[cutoff] += int(self._tail[listed].sum())

    def result(self) -> dict[str, float]:
        """The results for each cutoff K: `coverage@K`, the share of the catalog that is in any top-K list;
        `average_popularity@K`, the mean training interactions of listed items; `tail_share@K`, the share of listed
        items that are tail items."""
        result = {}
        for cutoff in self._cutoffs:
            result[f"coverage@{cutoff}"] = float(np.mean(self._first_place < cutoff))
            listed = max(1, self._listed[cutoff])
            result[f"average_popularity@{cutoff}"] = self._popularity_sum[cutoff] / listed
            result[f"tail_share@{cutoff}"] = self._tail_sum[cutoff] / listed
        return result
