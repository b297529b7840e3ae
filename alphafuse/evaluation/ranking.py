"""Exact ranking of the whole catalog, whose item vectors are sharded over the ranks.

Every rank scores all queries against the items it owns; ranks of targets are all-reduced counts, top lists are
merged from local ones. Scores of all items exist for a few queries at a time only, never on one rank.

Ties: of two items with equal scores, the one with the lower item index (the order of a hash of the id, so
independent of popularity and of the order of the input) comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from alphafuse.collectives import Communicator
from alphafuse.errors import AlphafuseError

NO_ITEM = -1


@dataclass(frozen=True)
class Queries:
    """What is ranked, equal on every rank.

    Attributes:
        hidden: [queries, hidden_dim].
        targets: int64 [queries], the item whose rank is asked for; None where only top lists are wanted.
        excluded: int64 [2, exclusions]; item excluded[1, j] is left out of the ranking of query excluded[0, j],
            in ascending order of the query. A query's own target stays in. None: nothing is left out.
    """

    hidden: torch.Tensor
    targets: torch.Tensor | None = None
    excluded: torch.Tensor | None = None


@dataclass(frozen=True)
class Ranked:
    """Answers, equal on every rank.

    Attributes:
        ranks: int64 [queries], of the targets, best is 1; empty where there were none.
        items: int64 [queries, top_k], best first; `NO_ITEM` where fewer items are left (narrower where the catalog is
            smaller than `top_k`).
        scores: as `items`.
    """

    ranks: torch.Tensor
    items: torch.Tensor
    scores: torch.Tensor


class CatalogRanking:
    """Ranks queries against all items.

    Args:
        item_vectors: [rows of this rank, hidden_dim].
        first_row: item index of the first of them; the ranges of the ranks ascend with the rank.
        similarity: what the score is.
        block_bytes: bound of one block of scores of this rank (at least one query is scored at a time).

    Raises:
        AlphafuseError: vectors that are not finite, which cannot be ranked.
    """

    def __init__(
        self,
        item_vectors: torch.Tensor,
        first_row: int,
        similarity: Literal["cosine", "dot"],
        communicator: Communicator,
        block_bytes: int,
    ) -> None:
        self._similarity = similarity
        self._vectors = self._space(item_vectors)
        self._first_row = first_row
        self._communicator = communicator
        self._refuse_non_finite(self._vectors, "item vectors")
        # The same number of blocks, and so of collectives, on every rank.
        most_rows = int(communicator.all_reduce(torch.tensor(len(item_vectors), device=item_vectors.device), "max"))
        self._queries_per_block = max(1, block_bytes // (4 * most_rows))

    def rank(self, queries: Queries, top_k: int = 0) -> Ranked:
        """Ranks of the targets and the `top_k` best items of each query. A collective."""
        hidden = self._space(queries.hidden)
        self._refuse_non_finite(hidden, "hidden states")
        better, items, best = [hidden.new_zeros(0, dtype=torch.int64)], [], []
        for start in range(0, len(hidden), self._queries_per_block):
            scores = hidden[start : start + self._queries_per_block] @ self._vectors.T  # [queries, rows of this rank]
            self._exclude(scores, queries, start)
            if queries.targets is not None:
                better.append(self._count_better(scores, queries.targets[start : start + len(scores)]))
            if top_k:
                block_items, block_best = self._local_top(scores, top_k)
                items.append(block_items)
                best.append(block_best)
        ranks = self._communicator.all_reduce(torch.cat(better)) + 1
        if not items:
            return Ranked(ranks, ranks.new_zeros(len(hidden), 0), hidden.new_zeros(len(hidden), 0))
        return Ranked(ranks, *self._merge(torch.cat(items), torch.cat(best), top_k))

    def _exclude(self, scores: torch.Tensor, queries: Queries, start: int) -> None:
        """Set the scores of this rank's excluded items of the block's queries, from query `start` on, to −inf."""
        if queries.excluded is None:
            return
        ends = torch.tensor([start, start + len(scores)], device=scores.device)
        low, high = torch.searchsorted(queries.excluded[0].contiguous(), ends).tolist()
        query, item = queries.excluded[:, low:high]
        own = (item >= self._first_row) & (item < self._first_row + scores.shape[1])
        if queries.targets is not None:
            own &= queries.targets[query] != item
        scores[query[own] - start, item[own] - self._first_row] = -torch.inf

    def _count_better(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """How many of this rank's items come before the target: int64 [queries of the block].

        A collective: the owner of a target tells the other ranks its score.
        """
        rows = targets - self._first_row
        own = (rows >= 0) & (rows < scores.shape[1])
        target_scores = scores.new_zeros(len(scores))
        target_scores[own] = scores[own, rows[own]]
        target_scores = self._communicator.all_reduce(target_scores)[:, None]
        better = (scores > target_scores).sum(dim=1)
        tied, row = (scores == target_scores).nonzero(as_tuple=True)
        return better.index_add_(0, tied, (row < rows[tied]).long())

    def _local_top(self, scores: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The best items of this rank and their scores, [queries of the block, min(top_k, rows)]."""
        count = min(top_k, scores.shape[1])
        if not count:
            return scores.new_zeros(len(scores), 0, dtype=torch.int64), scores.new_zeros(len(scores), 0)
        best, rows = scores.topk(count, dim=1)
        # Of items that tie for the last place, topk takes any: those queries are sorted in full.
        tied = (scores >= best[:, -1:]).sum(dim=1) > count
        if tied.any():
            rows[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :count]
        rows = rows.sort(dim=1).values
        best, order = scores.gather(1, rows).sort(dim=1, descending=True, stable=True)
        return rows.gather(1, order) + self._first_row, best

    def _merge(self, items: torch.Tensor, scores: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The best of all ranks' local lists. Ascending ranks hold ascending items, so a stable sort keeps ties."""
        items = self._communicator.all_gather_rows(items.T.contiguous())[0].T  # [queries, items of all ranks]
        scores = self._communicator.all_gather_rows(scores.T.contiguous())[0].T
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        items = items.gather(1, order)[:, :top_k]
        scores = scores[:, :top_k]
        return torch.where(scores == -torch.inf, NO_ITEM, items), scores

    def _space(self, vectors: torch.Tensor) -> torch.Tensor:
        vectors = vectors.float()
        return functional.normalize(vectors, dim=1) if self._similarity == "cosine" else vectors

    def _refuse_non_finite(self, vectors: torch.Tensor, name: str) -> None:
        """Comparisons with NaN are false, so that a broken model would rank every target first."""
        broken = self._communicator.all_reduce((~torch.isfinite(vectors).all(dim=1)).sum())
        if broken:
            raise AlphafuseError(
                f"{int(broken)} {name} of the model are not finite: the training has diverged; lower "
                "train.learning_rate, set train.max_grad_norm, and train again"
            )
