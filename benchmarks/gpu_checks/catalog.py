"""Check of the ranking: ranks and lists equal a sort of all scores, ties included."""

from __future__ import annotations

from typing import Any

import torch

from alphafuse.distributed.communicator import Communicator
from alphafuse.evaluation.ranking.catalog_ranking import CatalogRanking, Queries

KINDS, WIDTH, LISTED = 37, 48, 20


def ranks_with_ties(
    device: torch.device, num_items: tuple[int, ...] = (100, 2049, 70_000), num_queries: tuple[int, ...] = (1, 3, 513)
) -> dict[str, Any]:
    """Thirty-seven vectors, each of many items: ranks alone and with lists equal the definition, seen items left out or
    not."""
    torch.set_float32_matmul_precision("high")  # as a process may have it that trains in TF32
    cases = 0
    for items in num_items:
        for queries in num_queries:
            for leaves_out in (False, True):
                _check(device, items, queries, leaves_out)
                cases += 1
    return {"cases": cases}


def _check(device: torch.device, num_items: int, num_queries: int, leaves_out: bool) -> None:
    generator = torch.Generator().manual_seed(num_queries * num_items)
    kinds, kind = torch.randn(KINDS, WIDTH, generator=generator), torch.arange(num_items) % KINDS
    hidden = torch.randn(num_queries, WIDTH, generator=generator)
    targets = torch.randint(num_items, (num_queries,), generator=generator)
    scores = (hidden.double() @ kinds.double().T)[:, kind]  # equal for items of one kind, by construction
    excluded = None
    if leaves_out:
        item = torch.randperm(num_items, generator=generator)[: num_items // 2]
        first, stop = torch.randint(num_queries + 1, (2, len(item)), generator=generator).sort(dim=0).values
        excluded = torch.stack([item, first, stop])
        numbers = torch.arange(num_queries)[:, None]
        gone = torch.zeros(num_queries, num_items, dtype=torch.bool)
        gone[:, item] = (first <= numbers) & (numbers < stop)
        gone[numbers[:, 0], targets] = False
        scores[gone] = -torch.inf
    wanted = scores.gather(1, targets[:, None])
    before = (scores > wanted) | ((scores == wanted) & (torch.arange(num_items) < targets[:, None]))
    ranks = (1 + before.sum(dim=1)).tolist()
    ranking = CatalogRanking(kinds[kind].to(device), 0, "dot", Communicator())
    where = f"{num_items} items, {num_queries} queries, seen items {'left out' if leaves_out else 'kept'}"
    queries = Queries(hidden.to(device), targets.to(device), None if excluded is None else excluded.to(device))
    assert ranking.rank(queries).ranks.tolist() == ranks, f"ranks alone: {where}"
    listed = ranking.rank(queries, LISTED)
    assert listed.ranks.tolist() == ranks, f"ranks with lists: {where}"
    order = scores.sort(dim=1, descending=True, stable=True)
    expected = torch.where(order.values[:, :LISTED] == -torch.inf, -1, order.indices[:, :LISTED])
    assert listed.items.tolist() == expected.tolist(), f"lists: {where}"
