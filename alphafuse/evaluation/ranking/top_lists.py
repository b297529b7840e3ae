"""Keeps the best items of each query while the catalog is scored in tiles.

A tile is read once, for the maxima of small groups of its scores. Only groups that beat a query's threshold are kept,
and they wait until there are enough of them to be merged into the lists. Meanwhile the threshold, the score of the last
item of the list, is out of date, which lets some more groups through and nothing get lost. Of 5·10⁵ random items, 400
beat the threshold of a query with a list of 50, and ten merges take them all.
"""

from __future__ import annotations

import math

import torch

NO_ITEM = -1
GROUP = 16
"""Number of scores whose maximum stands for them: they are a fraction of the row apart, so that maxima are taken of
whole vectors of scores."""
ITEM_BITS = 40
"""Number of bits that hold an item index."""
DENSE_SHARE = 4
"""A tile is merged at once, without groups, where more than one score in so many is in a group that waits."""


class TopLists:
    """The best items of each query so far. Tiles must come in ascending order of their items; of equal scores, the item
    that came first is in front. A score of −inf leaves an item out.

    Attributes:
        threshold: [queries, 1], the score of a list's last item, or a lower one of earlier tiles.
    """

    def __init__(self, num_queries: int, top_k: int, device: torch.device) -> None:
        self._items = torch.full((num_queries, top_k), NO_ITEM, device=device)
        self._scores = torch.full((num_queries, top_k), -torch.inf, device=device)
        self.threshold = self._scores[:, -1:]
        self._waiting: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # query, first item, scores
        self._num_waiting = self._width = 0  # groups that wait, and items of a tile of theirs

    def add(self, scores: torch.Tensor, first_item: int) -> None:
        """Add the scores [queries, items of the tile] of the items from `first_item` on; the tile is contiguous."""
        num_queries, width = scores.shape
        size = math.gcd(GROUP, width)
        groups = scores.view(num_queries, size, width // size)
        query, group = (groups.amax(dim=1) > self.threshold).nonzero().unbind(1)
        if len(query) * size * DENSE_SHARE > scores.numel():
            self._merge_waiting()
            self._merge(scores, torch.arange(first_item, first_item + width, device=scores.device).expand_as(scores))
        elif len(query):
            if width != self._width:
                self._merge_waiting()
            self._width = width
            self._waiting.append((query, group + first_item, groups[query, :, group]))
            self._num_waiting += len(query)
            if self._num_waiting > self._items.numel():
                self._merge_waiting()

    def add_pairs(self, query: torch.Tensor, items: torch.Tensor, scores: torch.Tensor) -> None:
        """Add the scores of pairs of a query and an item, [pairs], ascending by query and item; all other scores of a
        tile are too low for its lists."""
        self._merge_waiting()
        if len(query):
            self._merge_pairs(query, items, scores)

    def result(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The items, int64 [queries, top_k], best first, `NO_ITEM` where none is left; and their scores."""
        self._merge_waiting()
        return self._items, self._scores

    def _merge_waiting(self) -> None:
        if not self._waiting:
            return
        query, first, scores = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._num_waiting = [], 0
        group, place = (scores > self.threshold[query]).nonzero().unbind(1)
        query, items, scores = (
            query[group],
            first[group] + place * (self._width // scores.shape[1]),
            scores[group, place],
        )
        order = (query << ITEM_BITS | items).argsort()
        self._merge_pairs(query[order], items[order], scores[order])

    def _merge_pairs(self, query: torch.Tensor, items: torch.Tensor, scores: torch.Tensor) -> None:
        """Merge scores of pairs of a query and a later item, ascending: the items of a query become a row, which is as
        long as that of the query with the most."""
        counts = torch.bincount(query, minlength=len(self._items))
        column = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
        shape = len(self._items), int(counts.max())
        rows = scores.new_full(shape, -torch.inf), items.new_full(shape, NO_ITEM)
        for row, values in zip(rows, (scores, items), strict=True):
            row[query, column] = values
        self._merge(*rows)

    def _merge(self, scores: torch.Tensor, items: torch.Tensor) -> None:
        """Merge rows of later items, [queries, items] each, ascending by item, into the lists."""
        top_k = self._items.shape[1]
        if scores.shape[1] > 4 * top_k:  # where sorting all would take longer
            scores, columns = _best(scores, top_k)
            items = items.gather(1, columns)
        scores, order = torch.cat([self._scores, scores], dim=1).sort(dim=1, descending=True, stable=True)
        self._scores = scores[:, :top_k].clone()
        items = torch.cat([self._items, items], dim=1).gather(1, order[:, :top_k])
        self._items = items.masked_fill_(self._scores == -torch.inf, NO_ITEM)
        self.threshold = self._scores[:, -1:]


def _best(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` best scores and their columns, [queries, count] each; of equal scores, lower columns come first."""
    best, columns = scores.topk(count, dim=1)
    # Of columns that tie for the last place, topk takes any: those queries are sorted in full.
    tied = (scores >= best[:, -1:]).sum(dim=1) > count
    if tied.any():
        columns[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :count]
    columns = columns.sort(dim=1).values
    best, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return best, columns.gather(1, order)
