"""Exact ranks over a large catalog, alone and as the stages ask for them, beside the bare matrix product, and beside
torch.topk with a Python loop.

python -m benchmarks.ranking --json benchmarks/results/ranking.json
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist

from alphafuse.data.sequences import Sequences
from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.row_partition import RowPartition
from alphafuse.evaluation.ranking.catalog_ranking import CPU_TILE, CatalogRanking, Queries
from alphafuse.evaluation.ranking.seen_items import SeenItems
from alphafuse.evaluation.ranking_metrics import ranking_metrics
from benchmarks.common.processes import memory_mib, peak_memory_mib, reset_peak_memory, run_ranks
from benchmarks.common.tables import arguments, publish

CUTOFFS = (5, 10, 20)
HISTORY = 50
"""Number of interactions of a user; each but the first is the target of a query."""
QUERY_BATCH, TOP_K = 512, 50
"""Queries at a time and longest list of the stage `evaluate`, by default."""


@dataclass(frozen=True)
class Cost:
    """What a case took on one rank.

    Attributes:
        seconds: of each round, of the slowest rank.
        processor_seconds: of each round, of this rank: the fairer measure where others use the machine.
        mib: memory above the item vectors.
    """

    seconds: list[float]
    processor_seconds: list[float]
    mib: float


def on_ranks(num_items: int, num_queries: int, dim: int, rounds: int) -> dict[str, Cost]:
    """What each case took on this rank; the cases take turns."""
    communicator = Communicator()
    start, stop = RowPartition(num_items, communicator.world_size).range(communicator.rank)
    generator = torch.Generator().manual_seed(1)  # queries are equal on all ranks
    hidden = torch.randn(num_queries, dim, generator=generator)
    targets = torch.randint(num_items, (num_queries,), generator=generator)
    vectors = torch.randn(stop - start, dim, generator=torch.Generator().manual_seed(2 + communicator.rank))
    ranking = CatalogRanking(vectors, start, "dot", communicator)
    cases: dict[str, Callable[[], Any]] = {
        "matrix product in tiles, nothing else": partial(bare_product, hidden, vectors, *CPU_TILE),
        "matrix product in blocks of 64 MiB": partial(bare_product, hidden, vectors, 512, 32_768),
        "exact ranks": lambda: ranking.rank(Queries(hidden, targets)),
        "exact ranks and top 20": lambda: ranking.rank(Queries(hidden, targets), 20),
        "as a stage: exact ranks, top 50, seen items left out": partial(as_a_stage, ranking, hidden, num_items),
    }
    times, processor_times, memory = defaultdict(list), defaultdict(list), {}
    for _ in range(rounds):
        for name, case in cases.items():
            reset_peak_memory()
            idle, processor = memory_mib(), time.process_time()
            times[name].append(_seconds(case))
            processor_times[name].append(time.process_time() - processor)
            memory[name] = peak_memory_mib() - idle
    return {name: Cost(times[name], processor_times[name], memory[name]) for name in cases}


def bare_product(hidden: torch.Tensor, vectors: torch.Tensor, queries: int, items: int) -> None:
    """All scores, a block at a time, written over each other."""
    buffer = torch.empty(queries * items)
    for part in hidden.split(queries):
        for tile in vectors.split(items):
            torch.mm(part, tile.T, out=buffer[: len(part) * len(tile)].view(len(part), len(tile)))


def as_a_stage(ranking: CatalogRanking, hidden: torch.Tensor, num_items: int) -> None:
    """Ranks and top lists of the queries of random users without the items seen before, batch by batch."""
    num_users = -(-len(hidden) // (HISTORY - 1))
    none, starts = np.zeros(num_users, np.int64), np.arange(num_users + 1) * HISTORY
    items = np.random.default_rng(4).integers(0, num_items, num_users * HISTORY)
    sequences = Sequences(items, starts, none, none, pa.chunked_array([pa.array(["user"] * num_users)]))
    all_users, all_positions = (values[: len(hidden)] for values in sequences.targets("test"))
    seen = SeenItems(sequences, all_users)
    for start in range(0, len(hidden), QUERY_BATCH):
        users, positions = (values[start : start + QUERY_BATCH] for values in (all_users, all_positions))
        targets = torch.from_numpy(items[starts[users] + positions])
        batch = hidden[start : start + QUERY_BATCH]
        ranking.rank(Queries(batch, targets, seen.before(users, positions)), TOP_K)


def our_metrics(num_items: int, num_queries: int, dim: int) -> tuple[float, dict[str, float]]:
    """Metrics of random queries, and the seconds that it takes."""
    communicator = Communicator()
    hidden, vectors, targets = _problem(num_items, num_queries, dim)
    start, stop = RowPartition(num_items, communicator.world_size).range(communicator.rank)
    ranking, metrics = CatalogRanking(vectors[start:stop].clone(), start, "dot", communicator), {}

    def rank() -> None:
        ranks = ranking.rank(Queries(hidden, targets)).ranks
        metrics.update(ranking_metrics(ranks.numpy(), CUTOFFS))

    return _seconds(rank), metrics


def plain_metrics(num_items: int, num_queries: int, dim: int, listed: int) -> tuple[float, dict[str, float]]:
    """Compute the same metrics plainly: scores of a batch, `torch.topk` of `listed` items, a loop over the queries."""
    hidden, vectors, targets = _problem(num_items, num_queries, dim)
    sums: dict[str, float] = defaultdict(float)

    def rank() -> None:
        for part, wanted in zip(hidden.split(256), targets.split(256), strict=True):
            top = (part @ vectors.T).topk(listed, dim=1).indices.tolist()
            for items, target in zip(top, wanted.tolist(), strict=True):
                if target in items:
                    place = items.index(target) + 1
                    for k in CUTOFFS:
                        if place <= k:
                            sums[f"hr@{k}"] += 1 / num_queries
                            sums[f"ndcg@{k}"] += 1 / math.log2(place + 1) / num_queries
                    sums["mrr"] += 1 / place / num_queries

    return _seconds(rank), dict(sums)


def _problem(num_items: int, num_queries: int, dim: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, item vectors, and targets whose vectors are near the hidden states."""
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(num_items, dim, generator=generator)
    targets = torch.randint(num_items, (num_queries,), generator=generator)
    noise = torch.randn(num_queries, dim, generator=generator)
    return 0.5 * vectors[targets] + noise, vectors, targets


def _seconds(function: Callable[[], Any]) -> float:
    dist.barrier()
    start = time.perf_counter()
    function()
    elapsed = torch.tensor(time.perf_counter() - start)
    dist.all_reduce(elapsed, op=dist.ReduceOp.MAX)
    return float(elapsed)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--items", type=int, default=10**6)
    parser.add_argument("--plain-items", type=int, default=10**5, help="items of the comparison with torch.topk")
    parser.add_argument("--queries", type=int, default=10**4)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sizes = (options.items, options.queries, options.dim)
    per_rank = run_ranks(options.ranks, on_ranks, *sizes, options.rounds)
    product = per_rank[0]["matrix product in tiles, nothing else"]
    rows = [
        {
            "case": name,
            "items": options.items,
            "processes × threads": f"{options.ranks} × 1",
            "seconds": median(cost.seconds),
            "ratio": median(cost.seconds) / median(product.seconds),
            "processor ratio": median(cost.processor_seconds) / median(product.processor_seconds),
            "MiB/rank above the vectors": max(result[name].mib for result in per_rank),
        }
        for name, cost in per_rank[0].items()
    ]
    plain_sizes = (options.plain_items, options.queries, options.dim)
    compared: dict[str, tuple[Callable[..., Any], tuple[int, ...], int, int]] = {
        "metrics from exact ranks": (our_metrics, plain_sizes, options.ranks, 1),
        "torch.topk(20) + Python loop": (plain_metrics, (*plain_sizes, 20), 1, options.ranks),
        "torch.topk(all) + Python loop, 500 queries × 20": (
            plain_metrics,
            (options.plain_items, options.queries // 20, options.dim, options.plain_items),
            1,
            options.ranks,
        ),
    }
    ours = None
    for name, (function, problem, ranks, threads) in compared.items():
        runs = [run_ranks(ranks, function, *problem, threads=threads)[0] for _ in range(options.rounds)]
        seconds = median(seconds for seconds, _ in runs) * (20 if "× 20" in name else 1)
        ours = ours or seconds
        where = {"items": options.plain_items, "processes × threads": f"{ranks} × {threads}"}
        rows.append(
            {"case": name, **where, "seconds": seconds, "ratio": seconds / ours}
            | dict.fromkeys(("processor ratio", "MiB/rank above the vectors"))
        )
        print(name, {key: round(value, 5) for key, value in runs[0][1].items()})
    publish(
        "Exact ranking", {"queries": options.queries, "dim": options.dim, "rounds": options.rounds}, rows, options.json
    )


if __name__ == "__main__":
    main()
