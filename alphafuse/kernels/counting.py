"""Counts the items that score higher than the target of each query; the scores stay inside of the kernel.

Runs on devices with kernels alone: elsewhere `alphafuse.evaluation.ranking.better_items` counts in tiles of scores.
Scores are products of float32 that are not rounded to TF32, all computed in the same order of operations: equal vectors
have equal scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rivals:
    """Queries with the target whose rank is wanted, among the items of this rank.

    Attributes:
        hidden: [queries, dim].
        vectors: [items of this rank, dim].
        targets: int64 [queries], the row of each target in `vectors`; below 0 and from the number of items on for
            targets of lower and of higher ranks.
        scores: [queries], scores of the targets, by `scores_of_pairs`.
    """

    hidden: torch.Tensor
    vectors: torch.Tensor
    targets: torch.Tensor
    scores: torch.Tensor

    def count_better(self) -> torch.Tensor:
        """Count the items before each target, int64 [queries]: of equal scores, lower rows come first."""
        from alphafuse.kernels.counting_triton import count_better

        return count_better(self.hidden, self.vectors, self.targets, self.scores)

    def are_better(self, queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Tell of pairs of a query and a row, int64 [pairs] each, whether the row comes before the target: bool
        [pairs]."""
        scores, wanted = scores_of_pairs(self.hidden, queries, self.vectors, rows), self.scores[queries]
        return (scores > wanted) | ((scores == wanted) & (rows < self.targets[queries]))


def scores_of_pairs(
    hidden: torch.Tensor, queries: torch.Tensor, vectors: torch.Tensor, rows: torch.Tensor
) -> torch.Tensor:
    """Scores [pairs] of pairs of a query in `hidden` [queries, dim] and a row of `vectors` [rows, dim]."""
    from alphafuse.kernels.counting_triton import score_pairs

    return score_pairs(hidden, queries, vectors, rows)
