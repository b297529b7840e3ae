"""Counts the items that come before the target of each query, tile by tile."""

from __future__ import annotations

import torch

from alphafuse.evaluation.ranking.item_tiles import ItemTiles


class BetterItems:
    """Number of items before the target of each query so far. Tiles must come in ascending order.

    Args:
        targets: int64 [queries], item indices, of any rank.
        target_scores: [queries], their scores.

    Attributes:
        counts: int64 [queries].
    """

    def __init__(self, targets: torch.Tensor, target_scores: torch.Tensor, tiles: ItemTiles) -> None:
        self.counts = torch.zeros_like(targets)
        self._targets, self._scores, self._tiles = targets, target_scores, tiles
        self._tile = tiles.of(targets)
        self._with_targets = set(self._tile.tolist())
        # In tiles before that of the target, an equal score counts as better; in tiles after it, it does not.
        below = target_scores.nextafter(target_scores.new_tensor(-torch.inf))
        self._threshold = torch.where(self._tile >= 0, below, target_scores)

    def add(self, scores: torch.Tensor, tile: int) -> None:
        """Count in the scores [queries, items of the tile] of a tile, and overwrite them."""
        if tile in self._with_targets:
            self._pass_targets(scores, tile)
        self.counts += scores.gt_(self._threshold[:, None]).sum(dim=1).long()

    def _pass_targets(self, scores: torch.Tensor, tile: int) -> None:
        """Count the items of a tile that tie with a target of the same tile and come before it."""
        query = (self._tile == tile).nonzero()[:, 0]
        column = self._targets[query] - self._tiles.start(tile)
        tied = scores[query] == self._scores[query, None]
        in_front = tied & (torch.arange(scores.shape[1], device=scores.device) < column[:, None])
        self.counts.index_add_(0, query, in_front.sum(dim=1))
        scores[query, column] = -torch.inf  # the target itself
        self._threshold[query] = self._scores[query]
