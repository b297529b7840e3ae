"""Keeps the best items of each query while the catalog is scored in tiles."""

from __future__ import annotations

import torch

NO_ITEM = -1


class TopLists:
    """The best items of each query so far. Tiles must come in ascending order of their items; of equal scores, the item
    that came first is in front.

    Attributes:
        items: int64 [queries, top_k], best first; `NO_ITEM` where there is none.
        scores: [queries, top_k]; −inf where there is none.
    """

    def __init__(self, num_queries: int, top_k: int, device: torch.device) -> None:
        self.items = torch.full((num_queries, top_k), NO_ITEM, device=device)
        self.scores = torch.full((num_queries, top_k), -torch.inf, device=device)

    def add(self, scores: torch.Tensor, first_item: int) -> None:
        """Add the scores [queries, items of the tile] of the items from `first_item` on."""
        # In a late tile, few queries find better items, and few of them. The maximum of a row is cheap, topk is not.
        queries = (scores.amax(dim=1) > self.scores[:, -1]).nonzero()[:, 0]
        if not len(queries):
            return
        chosen = scores[queries]
        better = int((chosen > self.scores[queries, -1:]).sum(dim=1).max())
        best, columns = _best_of_tile(chosen, min(self.scores.shape[1], better))
        best, items = (
            torch.cat([self.scores[queries], best], dim=1),
            torch.cat([self.items[queries], columns + first_item], dim=1),
        )
        best, order = best.sort(dim=1, descending=True, stable=True)
        self.scores[queries] = best[:, : self.scores.shape[1]]
        self.items[queries] = items.gather(1, order)[:, : self.items.shape[1]]


def _best_of_tile(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` best scores and their columns, [queries, count] each; of equal scores, lower columns come first."""
    best, columns = scores.topk(count, dim=1)
    # Of columns that tie for the last place, topk takes any: those queries are sorted in full.
    tied = (scores >= best[:, -1:]).sum(dim=1) > count
    if tied.any():
        columns[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :count]
    columns = columns.sort(dim=1).values
    best, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return best, columns.gather(1, order)
