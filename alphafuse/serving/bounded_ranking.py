"""Exact search that reads one byte of each number, and whole vectors of a few items alone.

The time of a search is that of reading all vectors. Here an item has a second vector of eight bits, whose scores are
wrong by no more than is known. Items whose score is so much below those of k others that it cannot be among the k best
are left out; the scores of all others, some dozens, are computed from their vectors of 32 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from alphafuse.distributed.devices import full_precision
from alphafuse.evaluation.ranking.catalog_ranking import WIDTH_UNIT, Queries, Ranked
from alphafuse.evaluation.ranking.exclusions import Exclusions
from alphafuse.evaluation.ranking.item_tiles import ItemTiles
from alphafuse.evaluation.ranking.top_lists import TopLists
from alphafuse.evaluation.ranking.vector_blocks import VectorBlocks

LARGEST = 127
"""Largest of the whole numbers that a vector of eight bits is made of."""
ROUNDING = 1e-5
"""Relative error of sums in 32 bits, generously, which the bounds have to cover, too."""
CELLS = 2**20
"""Number of scores that are computed at a time."""
WIDTHS = (4096, 2**18)
"""Fewest and most items of a tile."""
PAIRS = 2**16
"""Number of pairs whose vectors are compared at a time."""
ROUNDED = 2**16
"""Vectors rounded at a time."""


@dataclass(frozen=True)
class ByteVectors:
    """Vectors of whole numbers from −127 to 127 and a factor each, near to given vectors.

    Attributes:
        numbers: int8 [rows, dim].
        factors: float32 [rows].
        errors: float32 [rows], distances from the given vectors.
        lengths: float32 [rows], lengths of the given vectors.
    """

    numbers: torch.Tensor
    factors: torch.Tensor
    errors: torch.Tensor
    lengths: torch.Tensor

    @classmethod
    def of(cls, vectors: torch.Tensor | VectorBlocks) -> ByteVectors:
        """Round vectors, [rows, dim]."""
        rows, dim = vectors.shape
        made = cls(torch.empty(rows, dim, dtype=torch.int8), *(torch.empty(rows) for _ in range(3)))
        first = 0
        for block in vectors.split(ROUNDED):
            part = slice(first, first := first + len(block))
            factors = block.abs().amax(dim=1).clamp(min=torch.finfo(block.dtype).tiny) / LARGEST
            numbers = (block / factors[:, None]).round_()
            made.numbers[part], made.factors[part] = numbers.to(torch.int8), factors
            made.lengths[part] = torch.linalg.vector_norm(block, dim=1)
            made.errors[part] = torch.linalg.vector_norm(block - numbers.mul_(factors[:, None]), dim=1)
        return made


class BoundedRanking:
    """Finds the best items of queries; stands in for `CatalogRanking`, whose lists it gives up to the rounding of
    scores.

    Args:
        vectors: float32 [items, dim], as they are ranked: scores are inner products.
    """

    def __init__(self, vectors: VectorBlocks) -> None:
        self._vectors = vectors

    @cached_property
    def _bytes(self) -> ByteVectors:
        """The second vectors, made at the first search: a quarter of the memory of the others."""
        return ByteVectors.of(self._vectors)

    @cached_property
    def _worst(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The largest length of a vector, and the largest error of a second one."""
        return self._bytes.lengths.max(), self._bytes.errors.max()

    @full_precision()
    def rank(self, queries: Queries, top_k: int = 0) -> Ranked:
        """Find the `top_k` best items of each query. Ranks of targets are not computed."""
        hidden = queries.hidden.float()
        asked, tiles, exclusions = ByteVectors.of(hidden), self._tiles(len(hidden)), None
        if queries.excluded is not None:
            exclusions = Exclusions(queries.excluded, 0, len(hidden), None, tiles)
        error = self._error(asked)  # [queries]
        near, best = (TopLists(len(hidden), top_k, hidden.device) for _ in range(2))
        for tile in range(len(tiles)):
            first = tiles.start(tile)
            scores = self._near_scores(asked, slice(first, first + tiles.width))  # [queries, items of the tile]
            if exclusions is not None:
                exclusions.leave_out(scores, tile)
            near.add(scores, first)
            # k items have scores of the threshold less one error at least, and those below less two errors cannot.
            query, column = (scores > near.threshold - 2 * error[:, None]).nonzero().unbind(1)
            best.add_pairs(query, column + first, self._exact_scores(hidden, query, column + first))
        items, exact = best.result()
        return Ranked(items.new_empty(0), items, exact)

    def _near_scores(self, asked: ByteVectors, rows: slice) -> torch.Tensor:
        """Scores of vectors of eight bits: [queries, items]."""
        # The one product of whole numbers that torch has for CPUs; its sums are exact.
        sums = torch._int_mm(asked.numbers, self._bytes.numbers[rows].T)
        return (sums * self._bytes.factors[rows]).mul_(asked.factors[:, None])

    def _error(self, asked: ByteVectors) -> torch.Tensor:
        """The most by which any of the scores of vectors of eight bits can be wrong: [queries].

        With a query q = q' + e and an item v = v' + f, the score qv is q'v' + q'f + ev, where |q'f| ≤ |q'| |f| and
        |ev| ≤ |e| |v|.
        """
        longest, largest = self._worst
        rounded = asked.lengths + asked.errors  # of q', at most
        return rounded * (largest + ROUNDING * longest) + asked.errors * longest

    def _exact_scores(self, hidden: torch.Tensor, query: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """Scores of pairs of a query and an item, [pairs], each of which is summed in the same way."""
        parts = zip(query.split(PAIRS), item.split(PAIRS), strict=True)
        return torch.cat([(self._vectors[items] * hidden[queries]).sum(dim=1) for queries, items in parts])

    def _tiles(self, num_queries: int) -> ItemTiles:
        width = min(max(CELLS // num_queries, WIDTHS[0]), WIDTHS[1], -(-len(self._vectors) // WIDTH_UNIT) * WIDTH_UNIT)
        return ItemTiles(0, len(self._vectors), width)
