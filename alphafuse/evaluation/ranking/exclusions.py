"""Leaves items out of the ranking of some queries, tile by tile.

An exclusion stands for one item and a range of queries. Exclusions are spelled out as pairs of query and item for many
tiles at a time, since a tile alone has few, but never for more than fit in a little memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from alphafuse.evaluation.ranking.item_tiles import ItemTiles

MOST_PAIRS = 2**18
"""Number of pairs at which no more exclusions are spelled out at a time."""


class Exclusions:
    """The items that are left out of the rankings of some queries. Tiles must come in ascending order.

    Args:
        excluded: int64 [3, exclusions], see `Queries.excluded`; the queries are numbered from `first_query` on.
        targets: int64 [queries], the target of each query, which stays in; None if there are none.
        num_queries: number of the queries.
    """

    def __init__(
        self,
        excluded: torch.Tensor,
        first_query: int,
        num_queries: int,
        targets: torch.Tensor | None,
        tiles: ItemTiles,
    ) -> None:
        self._targets, self._tiles = targets, tiles
        self._chunks = iter(_own_chunks(excluded, first_query, num_queries, tiles))
        self._spell_out_next()

    def leave_out(self, scores: torch.Tensor, tile: int) -> None:
        """Set the scores [queries, items of the tile] of what is excluded to −inf."""
        while self._ends:
            low, high = self._ends[tile], self._ends[tile + 1]
            if low < high:
                scores[self._query[low:high], self._column[low:high]] = -torch.inf
            if high < self._ends[-1]:  # the others are in later tiles
                return
            self._spell_out_next()

    def _spell_out_next(self) -> None:
        """Turn the next exclusions into pairs, ascending by tile; `_ends` are the pairs before each tile and in all."""
        self._ends: list[int] = []
        chunk = next(self._chunks, None)
        if chunk is None:
            return
        tile, item = chunk[:2]
        pair, query = _pairs(chunk, self._targets)
        self._query = query
        self._column = (item - self._tiles.first_item - tile * self._tiles.width)[pair]
        numbers = torch.arange(len(self._tiles) + 1, device=tile.device)
        self._ends = torch.searchsorted(tile[pair], numbers).tolist()


def excluded_pairs(
    excluded: torch.Tensor, num_queries: int, targets: torch.Tensor | None, tiles: ItemTiles
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the pairs of a query and an item of this rank that is left out for it, int64 [pairs] each, some at a time.
    The arguments are those of `Exclusions`."""
    for chunk in _own_chunks(excluded, 0, num_queries, tiles):
        pair, query = _pairs(chunk, targets)
        yield query, chunk[1][pair]


def with_items(excluded: torch.Tensor | None, items: torch.Tensor, num_queries: int) -> torch.Tensor | None:
    """Exclusions that also leave some items out of the rankings of all queries.

    Args:
        excluded: int64 [3, exclusions], see `Queries.excluded`; None: there are no others.
        items: int64 [items], each once.
    """
    if not len(items):
        return excluded
    everywhere = torch.stack([items, torch.zeros_like(items), torch.full_like(items, num_queries)])
    if excluded is None:
        return everywhere
    return torch.cat([excluded[:, ~torch.isin(excluded[0], items)], everywhere], dim=1)


def _own_chunks(
    excluded: torch.Tensor, first_query: int, num_queries: int, tiles: ItemTiles
) -> tuple[torch.Tensor, ...]:
    """Exclusions of items of this rank in chunks of some `MOST_PAIRS` pairs, ascending by tile: int64 [4, exclusions]
    with tile, item, first query and end of the queries, numbered from 0 on."""
    tile = tiles.of(excluded[0])
    first, stop = (excluded[1:] - first_query).clamp(0, num_queries)
    own = ((tile >= 0) & (tile < len(tiles)) & (first < stop)).nonzero()[:, 0]
    order = own[tile[own].argsort()]
    exclusions = torch.stack([tile, excluded[0], first, stop])[:, order]
    pairs = (exclusions[3] - exclusions[2]).cumsum(0)
    sizes = torch.unique_consecutive(pairs // MOST_PAIRS, return_counts=True)[1].tolist()
    return exclusions.split(sizes, dim=1) if sizes else ()


def _pairs(chunk: torch.Tensor, targets: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The exclusion, as a number in the chunk, and the query of each pair but for those of a query and its target:
    int64 [pairs] each."""
    _, item, first, stop = chunk
    counts = stop - first
    pair = torch.repeat_interleave(counts)
    query = torch.arange(len(pair), device=pair.device) - (counts.cumsum(0) - counts - first)[pair]
    if targets is not None:
        others = targets[query] != item[pair]
        pair, query = pair[others], query[others]
    return pair, query
