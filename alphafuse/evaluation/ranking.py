"""Ranks the whole catalog exactly; its item vectors are sharded over the ranks.

Every rank scores all queries against the items it owns. Ranks of targets are all-reduced counts, and top lists are
merged from local ones. Scores exist for one tile of queries and items at a time, which stays in the processor's cache,
so that the ranking costs little more than the matrix product.

Ties: of two items with equal scores, the one with the lower item index comes first. Item indices follow a hash of the
id, so that ties depend neither on popularity nor on the order of the input.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import AlphafuseError
from alphafuse.evaluation.top_lists import NO_ITEM, TopLists

CPU_TILE = (512, 1024)
"""Number of queries and items in a tile of scores: 2 MiB, the second-level cache of a core."""
GPU_TILE = (512, 65_536)
EXCLUSION_GROUP = 4096
"""Number of exclusions that are applied at a time: at most 2 million pairs of query and item in a tile."""
WIDTH_UNIT = 64
"""The width of a tile is a multiple of this, so that the matrix product sums every column in the same way."""


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Context in which products of float32 are not rounded to TF32 or bfloat16 first, whatever the process chose: close
    scores would become equal, and their order that of the item indices."""
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(chosen)


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


class CatalogRanking:
    """Ranks queries against all items.

    Args:
        item_vectors: float32 [rows of this rank, hidden_dim]; for the cosine they are normalised in place.
        first_row: item index of the first of them; the ranges of the ranks ascend with the rank.
        similarity: the score, cosine or dot product.
        tile: number of queries and items that are scored at a time; by default as fits the device.

    Raises:
        AlphafuseError: vectors are not finite, so that they cannot be ranked.
    """

    def __init__(
        self,
        item_vectors: torch.Tensor,
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
            functional.normalize(item_vectors, dim=1, out=item_vectors)
        self._refuse_non_finite(self._vectors, "item vectors")
        self._tile_queries, widest = tile or (CPU_TILE if item_vectors.device.type == "cpu" else GPU_TILE)
        longest = int(communicator.all_reduce(torch.tensor(len(item_vectors), device=item_vectors.device), "max"))
        self._tile_items = min(widest, -(-longest // WIDTH_UNIT) * WIDTH_UNIT)
        self._last_tile = self._padded(item_vectors[len(item_vectors) // self._tile_items * self._tile_items :])
        self._buffer = item_vectors.new_empty(self._tile_queries * self._tile_items)

    @full_precision()
    def rank(self, queries: Queries, top_k: int = 0) -> Ranked:
        """Find the ranks of the targets and the `top_k` best items of each query. A collective."""
        hidden = queries.hidden.float()
        if self._similarity == "cosine":
            hidden = functional.normalize(hidden, dim=1)
        self._refuse_non_finite(hidden, "hidden states")
        target_scores = None if queries.targets is None else self._target_scores(hidden, queries.targets)
        better = torch.zeros(0 if queries.targets is None else len(hidden), dtype=torch.int64, device=hidden.device)
        top = TopLists(len(hidden), top_k, hidden.device)
        for start in range(0, len(hidden), self._tile_queries):
            part = slice(start, min(start + self._tile_queries, len(hidden)))
            exclusions = self._own_exclusions(queries, part)
            targets = None if queries.targets is None else queries.targets[part]
            lists = TopLists(part.stop - part.start, top_k, hidden.device)
            for first in range(0, len(self._vectors), self._tile_items):
                scores = self._score(hidden[part], first)  # [queries of the part, items of the tile]
                self._leave_out(scores, first, exclusions, targets)
                if top_k:
                    lists.add(scores, self._first_row + first)
                if targets is not None and target_scores is not None:
                    better[part] += self._count_better(scores, first, targets, target_scores[part])
            top.items[part], top.scores[part] = lists.items, lists.scores
        ranks = self._communicator.all_reduce(better) + 1
        return Ranked(ranks, *self._merge(top.items, top.scores, top_k))

    def _score(self, hidden: torch.Tensor, first: int) -> torch.Tensor:
        """Scores of this rank's items from row `first` on: [queries, items of the tile], a view of the buffer."""
        tile = self._vectors[first : first + self._tile_items]
        return self._product(hidden, tile if len(tile) == self._tile_items else self._last_tile)[:, : len(tile)]

    def _product(self, hidden: torch.Tensor, tile: torch.Tensor) -> torch.Tensor:
        """Product of hidden states with a tile, always of the same width: products of other shapes may be rounded
        differently, so that equal vectors would have different scores."""
        out = self._buffer[: len(hidden) * self._tile_items].view(len(hidden), self._tile_items)
        return torch.mm(hidden, tile.T, out=out)

    def _padded(self, vectors: torch.Tensor) -> torch.Tensor:
        return functional.pad(vectors, (0, 0, 0, self._tile_items - len(vectors)))

    def _target_scores(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Scores of the targets: [queries]. A collective: the owners of the targets send their vectors."""
        rows = targets - self._first_row
        own = (rows >= 0) & (rows < len(self._vectors))
        vectors = torch.zeros_like(hidden)
        vectors[own] = self._vectors[rows[own]]
        self._communicator.all_reduce(vectors)
        scores = vectors.new_empty(len(hidden))
        for start in range(0, len(hidden), self._tile_queries):
            part = slice(start, start + self._tile_queries)
            for first in range(start, min(part.stop, len(hidden)), self._tile_items):
                tile = vectors[first : min(first + self._tile_items, part.stop)]
                products = self._product(hidden[part], self._padded(tile))[first - start :]
                scores[first : first + len(tile)] = products.diagonal()[: len(tile)]
        return scores

    def _own_exclusions(self, queries: Queries, part: slice) -> torch.Tensor:
        """Exclusions of rows of this rank and queries within `part`, numbered from 0, ascending by row: int64 [3, own],
        row, first query and the query behind the last one."""
        if queries.excluded is None:
            return torch.zeros(3, 0, dtype=torch.int64, device=queries.hidden.device)
        row = queries.excluded[0] - self._first_row
        first, stop = (queries.excluded[1:] - part.start).clamp(0, part.stop - part.start)
        own = (row >= 0) & (row < len(self._vectors)) & (first < stop)
        exclusions = torch.stack([row, first, stop])[:, own]
        return exclusions[:, exclusions[0].argsort()]

    def _leave_out(
        self, scores: torch.Tensor, first_row: int, exclusions: torch.Tensor, targets: torch.Tensor | None
    ) -> None:
        """Set the scores of what is excluded to −inf, in the tile of the rows from `first_row` on."""
        ends = exclusions.new_tensor([first_row, first_row + scores.shape[1]])
        low, high = torch.searchsorted(exclusions[0].contiguous(), ends).tolist()
        # In groups, since each exclusion may stand for all queries of the tile.
        for group in exclusions[:, low:high].split(EXCLUSION_GROUP, dim=1):
            row, first, stop = group
            counts = stop - first
            pair = torch.repeat_interleave(counts)  # [pairs of query and item], the exclusion of each
            query = torch.arange(len(pair), device=pair.device) - (counts.cumsum(0) - counts - first)[pair]
            if targets is not None:
                others = targets[query] != row[pair] + self._first_row
                pair, query = pair[others], query[others]
            scores[query, row[pair] - first_row] = -torch.inf

    def _count_better(
        self, scores: torch.Tensor, first: int, targets: torch.Tensor, target_scores: torch.Tensor
    ) -> torch.Tensor:
        """Number of items of the tile that come before the target: int64 [queries]. Overwrites the scores."""
        column = targets - self._first_row - first
        width = scores.shape[1]
        inside = ((column >= 0) & (column < width)).nonzero()[:, 0]
        at, own = column[inside], scores[inside]
        tied = own == target_scores[inside, None]
        in_front = (tied & (torch.arange(width, device=scores.device) < at[:, None])).sum(dim=1)
        scores[inside, at] = -torch.inf  # the target itself
        # In tiles before that of the target, an equal score counts as better; in tiles after it, it does not.
        below = target_scores.nextafter(target_scores.new_tensor(-torch.inf))
        scores.gt_(torch.where(column >= width, below, target_scores)[:, None])
        return scores.sum(dim=1).long().index_add_(0, inside, in_front)

    def _merge(self, items: torch.Tensor, scores: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Merge the lists of all ranks. Ascending ranks hold ascending items, so a stable sort keeps ties in order."""
        items = self._communicator.all_gather_rows(items.T.contiguous())[0].T  # [queries, items of all ranks]
        scores = self._communicator.all_gather_rows(scores.T.contiguous())[0].T
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        items = items.gather(1, order)[:, :top_k]
        scores = scores[:, :top_k]
        return torch.where(scores == -torch.inf, NO_ITEM, items), scores

    def _refuse_non_finite(self, vectors: torch.Tensor, name: str) -> None:
        """Raise if vectors are not finite: comparisons with NaN are false, so every target would be first."""
        broken = self._communicator.all_reduce((~torch.isfinite(vectors).all(dim=1)).sum())
        if broken:
            raise AlphafuseError(
                f"{int(broken)} {name} of the model are not finite: the training has diverged; lower "
                "train.learning_rate, set train.max_grad_norm, and train again"
            )
