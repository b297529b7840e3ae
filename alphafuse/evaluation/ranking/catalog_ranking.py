"""Ranks the whole catalog exactly; its item vectors are sharded over the ranks.

Every rank scores all queries against the items it owns. Ranks of targets are all-reduced counts, and top lists are
merged from local ones. Scores exist for one tile of queries and items at a time, which stays in the processor's cache,
so that the ranking costs little more than the matrix product. Where kernels run, ranks alone are counted without
writing a score down (`alphafuse.kernels.counting`); lists need the scores.

Ties: of two items with equal scores, the one with the lower item index comes first. Item indices follow a hash of the
id, so that ties depend neither on popularity nor on the order of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch.nn import functional

from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.devices import full_precision
from alphafuse.errors import AlphafuseError
from alphafuse.evaluation.ranking.better_items import BetterItems
from alphafuse.evaluation.ranking.exclusions import Exclusions, excluded_pairs
from alphafuse.evaluation.ranking.item_tiles import ItemTiles
from alphafuse.evaluation.ranking.top_lists import TopLists
from alphafuse.evaluation.ranking.vector_blocks import VectorBlocks
from alphafuse.kernels.counting import Rivals, scores_of_pairs
from alphafuse.kernels.device import runs_kernels

CPU_TILE = (512, 1024)
"""Number of queries and items in a tile of scores: 2 MiB, the second-level cache of a core."""
GPU_TILE = (512, 65_536)
CHECKED_ROWS = 65_536
"""Vectors checked at a time, so that the check needs no memory of their size."""
WIDTH_UNIT = 64
"""The width of a tile is a multiple of this, so that the matrix product sums every column in the same way."""


@dataclass(frozen=True)
class Queries:
    """Queries to rank, equal on every rank.

    Attributes:
        hidden: [queries, hidden_dim], hidden states.
        targets: int64 [queries], the item whose rank is wanted; None if only top lists are wanted.
        excluded: int64 [3, exclusions]; item excluded[0, j] is left out of the ranking of all queries from
            excluded[1, j] up to excluded[2, j], and of each of them once. A query's own target stays in.
            None: nothing is left out.
    """

    hidden: torch.Tensor
    targets: torch.Tensor | None = None
    excluded: torch.Tensor | None = None


@dataclass(frozen=True)
class Ranked:
    """Answers, equal on every rank.

    Attributes:
        ranks: int64 [queries], ranks of the targets, best is 1; empty without targets.
        items: int64 [queries, top_k], best first; `NO_ITEM` where fewer items are left.
        scores: [queries, top_k], scores of `items`.
    """

    ranks: torch.Tensor
    items: torch.Tensor
    scores: torch.Tensor


class Ranking(Protocol):
    """Whatever finds the best items of queries: `CatalogRanking`, or an approximate index."""

    def rank(self, queries: Queries, top_k: int = 0) -> Ranked:
        """Find the `top_k` best items of each query, and the ranks of the targets where all items are scored."""


class CatalogRanking:
    """Ranks queries against all items.

    Args:
        item_vectors: float32 [rows of this rank, hidden_dim]; for the cosine they are normalised in place. Blocks of
            vectors, such as memory-mapped files, are not copied.
        first_row: item index of the first of them; the ranges of the ranks ascend with the rank.
        similarity: the score, cosine or dot product.
        tile: number of queries and items that are scored at a time; by default as fits the device.

    Raises:
        AlphafuseError: vectors are not finite, so that they cannot be ranked.
    """

    def __init__(
        self,
        item_vectors: torch.Tensor | VectorBlocks,
        first_row: int,
        similarity: Literal["cosine", "dot"],
        communicator: Communicator,
        tile: tuple[int, int] | None = None,
    ) -> None:
        self._similarity = similarity
        self._vectors = item_vectors
        self._first_row = first_row
        self._communicator = communicator
        if similarity == "cosine":
            for block in item_vectors.split(CHECKED_ROWS):
                functional.normalize(block, dim=1, out=block)
        self._refuse_non_finite(self._vectors, "item vectors")
        self._tile_queries, widest = tile or (CPU_TILE if item_vectors.device.type == "cpu" else GPU_TILE)
        longest = int(communicator.all_reduce(torch.tensor(len(item_vectors), device=item_vectors.device), "max"))
        width = min(widest, -(-longest // WIDTH_UNIT) * WIDTH_UNIT)
        self._tiles = ItemTiles(first_row, len(item_vectors), width)
        self._last_tile = self._padded(item_vectors[len(item_vectors) // width * width :])
        self._buffer = self._last_tile.new_empty(self._tile_queries * width)

    @full_precision()
    def rank(self, queries: Queries, top_k: int = 0) -> Ranked:
        """Find the ranks of the targets and the `top_k` best items of each query. A collective."""
        hidden = queries.hidden.float()
        if self._similarity == "cosine":
            hidden = functional.normalize(hidden, dim=1)
        self._refuse_non_finite(hidden, "hidden states")
        vectors = None if queries.targets is None else self._target_vectors(hidden, queries.targets)
        if vectors is not None and not top_k and runs_kernels(hidden.device):
            better = self._communicator.all_reduce(self._count_in_kernel(hidden, vectors, queries))
            return Ranked(better + 1, better.new_empty(len(hidden), 0), hidden.new_empty(len(hidden), 0))
        target_scores = None if vectors is None else self._target_scores(hidden, vectors)
        better = torch.zeros(0 if queries.targets is None else len(hidden), dtype=torch.int64, device=hidden.device)
        items = torch.empty(len(hidden), top_k, dtype=torch.int64, device=hidden.device)
        scores = hidden.new_empty(len(hidden), top_k)
        for start in range(0, len(hidden), self._tile_queries):
            part = slice(start, min(start + self._tile_queries, len(hidden)))
            lists = TopLists(part.stop - part.start, top_k, hidden.device)
            counts = None
            if queries.targets is not None and target_scores is not None:
                counts = BetterItems(queries.targets[part], target_scores[part], self._tiles)
            self._score_tiles(hidden[part], self._exclusions(queries, part), lists if top_k else None, counts)
            items[part], scores[part] = lists.result()
            if counts is not None:
                better[part] = counts.counts
        ranks = self._communicator.all_reduce(better) + 1
        return Ranked(ranks, *self._merge(items, scores, top_k))

    def _score_tiles(
        self,
        hidden: torch.Tensor,
        exclusions: Exclusions | None,
        lists: TopLists | None,
        counts: BetterItems | None,
    ) -> None:
        """Score this rank's items tile by tile, and hand the scores to the top lists and to the counts."""
        span = self._communicator.timer.span
        for tile in range(len(self._tiles)):
            with span("product"):
                scores = self._score(hidden, tile)
            if exclusions is not None:
                with span("exclusions"):
                    exclusions.leave_out(scores, tile)
            if lists is not None:
                with span("lists"):
                    lists.add(scores, self._tiles.start(tile))
            if counts is not None:
                with span("counting"):
                    counts.add(scores, tile)

    def _score(self, hidden: torch.Tensor, tile: int) -> torch.Tensor:
        """Scores of the items of a tile, in the buffer: [queries, width]; −inf behind the last item of this rank."""
        first = tile * self._tiles.width
        vectors = self._vectors[first : first + self._tiles.width]
        if len(vectors) == self._tiles.width:
            return self._product(hidden, vectors)
        scores = self._product(hidden, self._last_tile)
        scores[:, len(vectors) :] = -torch.inf
        return scores

    def _exclusions(self, queries: Queries, part: slice) -> Exclusions | None:
        if queries.excluded is None:
            return None
        targets = None if queries.targets is None else queries.targets[part]
        return Exclusions(queries.excluded, part.start, part.stop - part.start, targets, self._tiles)

    def _product(self, hidden: torch.Tensor, tile: torch.Tensor) -> torch.Tensor:
        """Product of hidden states with a tile, always of the same width: products of other shapes may be rounded
        differently, so that equal vectors would have different scores."""
        out = self._buffer[: len(hidden) * self._tiles.width].view(len(hidden), self._tiles.width)
        return torch.mm(hidden, tile.T, out=out)

    def _padded(self, vectors: torch.Tensor) -> torch.Tensor:
        return functional.pad(vectors, (0, 0, 0, self._tiles.width - len(vectors)))

    def _count_in_kernel(self, hidden: torch.Tensor, target_vectors: torch.Tensor, queries: Queries) -> torch.Tensor:
        """Count this rank's items before the target of each query, [queries], without a score that is written down."""
        assert queries.targets is not None
        assert isinstance(self._vectors, torch.Tensor)  # blocks of vectors lie on CPUs
        with self._communicator.timer.span("counting"):
            numbers = torch.arange(len(hidden), device=hidden.device)
            scores = scores_of_pairs(hidden, numbers, target_vectors, numbers)
            rivals = Rivals(hidden, self._vectors, queries.targets - self._first_row, scores)
            better = rivals.count_better()
            if queries.excluded is not None:
                for query, item in excluded_pairs(queries.excluded, len(hidden), queries.targets, self._tiles):
                    left_out = rivals.are_better(query, item - self._first_row)
                    better.index_add_(0, query, left_out.long(), alpha=-1)
        return better

    def _target_vectors(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Vectors of the targets: [queries, dim]. A collective: their owners send them."""
        rows = targets - self._first_row
        own = (rows >= 0) & (rows < len(self._vectors))
        vectors = torch.zeros_like(hidden)
        vectors[own] = self._vectors[rows[own]]
        return self._communicator.all_reduce(vectors)

    def _target_scores(self, hidden: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Scores [queries] of the targets, with vectors [queries, dim]."""
        scores = vectors.new_empty(len(hidden))
        for start in range(0, len(hidden), self._tile_queries):
            part = slice(start, start + self._tile_queries)
            for first in range(start, min(part.stop, len(hidden)), self._tiles.width):
                tile = vectors[first : min(first + self._tiles.width, part.stop)]
                products = self._product(hidden[part], self._padded(tile))[first - start :]
                scores[first : first + len(tile)] = products.diagonal()[: len(tile)]
        return scores

    def _merge(self, items: torch.Tensor, scores: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Merge the lists of all ranks. Ascending ranks hold ascending items, so a stable sort keeps ties in order."""
        items = self._communicator.all_gather_rows(items.T.contiguous())[0].T  # [queries, items of all ranks]
        scores = self._communicator.all_gather_rows(scores.T.contiguous())[0].T
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        return items.gather(1, order)[:, :top_k], scores[:, :top_k]

    def _refuse_non_finite(self, vectors: torch.Tensor | VectorBlocks, name: str) -> None:
        """Raise if vectors are not finite: comparisons with NaN are false, so every target would be first."""
        broken = torch.zeros((), dtype=torch.int64, device=vectors.device)
        for block in vectors.split(CHECKED_ROWS):
            broken += (~torch.isfinite(block).all(dim=1)).sum()
        self._communicator.all_reduce(broken)
        if broken:
            raise diverged(int(broken), name)


def diverged(count: int, name: str) -> AlphafuseError:
    """The error of a model that cannot rank, since so many of its vectors, which `name` names, are not finite."""
    return AlphafuseError(
        f"{count} {name} of the model are not finite: the training has diverged; lower "
        "train.learning_rate, set train.max_grad_norm, and train again"
    )
