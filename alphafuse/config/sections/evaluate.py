"""The section `evaluate`: exact ranking over the full catalog."""

from __future__ import annotations

from typing import Annotated, Literal

from alphafuse.config.base import OPERATIONAL, Added, Count, Fraction, Section


class EvaluateConfig(Section):
    """Exact ranking over the full catalog."""

    cutoffs: tuple[Count, ...] = (1, 5, 10, 20, 50)
    """K of the metrics HR@K, NDCG@K and MRR@K."""
    similarity: Literal["trained", "dot", "cosine"] = "trained"
    """Similarity that items are ranked by; `trained`: that of the loss."""
    exclude_seen: bool = True
    """Leave the items of the user's history, except the target, out of the ranking, as recommendations do."""
    tail_share: Fraction = 0.8
    """Share of the items, the least popular in training, that counts as the tail."""
    tail_user_length: Count = 10
    """Most interactions of a user who counts as a tail user."""
    short_history: Count = 5
    """Most items of a history that counts as short."""
    shuffle_histories: Annotated[bool, Added(False)] = False
    """Rank every target once more, after the items of its history in random order: how much of a result is order."""
    query_batch: Annotated[Count, OPERATIONAL] = 512
    """Queries ranked at a time."""

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics that are measured."""
        return [f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in self.cutoffs]
