"""An approximate index over the item vectors of an export, for catalogs that are too large to score every item.

The index is a graph of neighbours (HNSW, Malkov & Yashunin 2018) of usearch, which was chosen because its file is
mapped into memory, holds vectors in 16 bits, and is read by many languages. The graph only proposes items: their scores
are computed from the vectors of the export, so that a list differs from the exact one by missing items alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from alphafuse.distributed.devices import full_precision
from alphafuse.evaluation.ranking.catalog_ranking import Queries, Ranked
from alphafuse.evaluation.ranking.exclusions import excluded_pairs
from alphafuse.evaluation.ranking.item_tiles import ItemTiles
from alphafuse.evaluation.ranking.top_lists import NO_ITEM
from alphafuse.evaluation.ranking.vector_blocks import VectorBlocks

CONNECTIVITY = 16
"""Number of neighbours of a node of the graph, M of the paper; twice as many in its lowest layer."""
EXPANSION = 128
"""Number of nodes that are kept while a node is added or looked for, ef of the paper."""
PROPOSALS = 4
"""Number of items that the graph proposes for each place of a list."""
ADDED = 65_536
"""Vectors added at a time."""


def to_index(vectors: VectorBlocks) -> bytes:
    """Return the content of a file of usearch: the graph with all vectors in 16 bits, whose keys are item indices and
    whose distance is one minus the inner product.

    Args:
        vectors: [items, dim], as they are ranked.
    """
    index = _new_index(vectors.shape[1])
    first = 0
    for block in vectors.split(ADDED):
        index.add(np.arange(first, first + len(block)), block.numpy(), threads=torch.get_num_threads())
        first += len(block)
    content: bytes = bytes(index.save())
    return content


class ApproximateRanking:
    """Ranks queries against the items that an index proposes; stands in for `CatalogRanking`.

    Args:
        vectors: [items, dim], as they are ranked.
        path: local file of the index over the first of these vectors. It is mapped into memory.
        indexed: number of the vectors in the index. All later ones are scored for every query.

    Raises:
        ValueError: the index is of other vectors.
    """

    def __init__(self, vectors: VectorBlocks, path: str, indexed: int) -> None:
        self._vectors = vectors
        self._later = vectors[indexed:]
        self._index = _new_index(vectors.shape[1])
        self._index.view(path)
        found, wanted = (len(self._index), self._index.ndim), (indexed, vectors.shape[1])
        if found != wanted:
            raise ValueError("it indexes {} vectors of {} dimensions, not {} of {}".format(*found, *wanted))
        self._tiles = ItemTiles(0, len(vectors), len(vectors))

    @full_precision()
    def rank(self, queries: Queries, top_k: int = 0) -> Ranked:
        """Find `top_k` of the best items of each query, in their exact order. Ranks of targets are not computed."""
        hidden = queries.hidden.float()
        left_out = self._left_out(queries)
        most = int(torch.bincount(left_out // len(self._vectors)).max()) if len(left_out) else 0
        items = self._proposed(hidden, min(PROPOSALS * top_k + most, len(self._index)))
        vectors = self._vectors[items.clamp(min=0).flatten()].view(*items.shape, -1)
        scores = torch.einsum("qd,qpd->qp", hidden, vectors)  # [queries, proposals]
        later = torch.arange(len(self._index), len(self._vectors)).expand(len(hidden), -1)
        items, scores = torch.cat([items, later], dim=1), torch.cat([scores, hidden @ self._later.T], dim=1)
        pairs = torch.arange(len(hidden))[:, None] * len(self._vectors) + items
        scores[(items == NO_ITEM) | torch.isin(pairs, left_out)] = -torch.inf
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        scores, items = scores[:, :top_k], items.gather(1, order)[:, :top_k]
        return Ranked(items.new_empty(0), items.masked_fill(scores == -torch.inf, NO_ITEM), scores)

    def _proposed(self, hidden: torch.Tensor, count: int) -> torch.Tensor:
        """Indexed items near to each query, ascending, int64 [queries, count]; `NO_ITEM` where there are fewer."""
        found = self._index.search(hidden.numpy(), count, threads=torch.get_num_threads())
        items = torch.full((len(hidden), count), NO_ITEM)
        for row in range(len(hidden)):
            keys = found.keys if len(hidden) == 1 else found[row].keys  # of one query, usearch leaves out a dimension
            items[row, : len(keys)] = torch.from_numpy(keys.astype(np.int64))
        return items.sort(dim=1).values

    def _left_out(self, queries: Queries) -> torch.Tensor:
        """Pairs of a query and an item that is left out for it, one number each: int64 [pairs]."""
        if queries.excluded is None:
            return torch.empty(0, dtype=torch.int64)
        pairs = excluded_pairs(queries.excluded, len(queries.hidden), None, self._tiles)
        return torch.cat([torch.empty(0, dtype=torch.int64), *(q * len(self._vectors) + item for q, item in pairs)])


def _new_index(dim: int) -> Any:
    from usearch.index import Index

    return Index(
        ndim=dim,
        metric="ip",
        dtype="f16",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION,
        expansion_search=EXPANSION,
    )
