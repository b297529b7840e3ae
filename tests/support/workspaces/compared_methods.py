"""Hand-made evaluations of two methods, a text baseline, an ensemble and a method that failed, and their comparison."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pyarrow as pa
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config import GridConfig
from alphafuse.evaluation.comparison.method_comparison import Comparison, FinishedRun, compare_methods
from alphafuse.evaluation.ranks import FILE, SCHEMA
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace

USERS = ["ann", "ann", "bob", "bob"]
"""User of each of the four queries."""
RANKS = {
    ("AlphaFuse", 1): [1, 2, 1, 5],
    ("AlphaFuse", 2): [1, 1, 2, 9],
    ("IDs", 1): [3, 8, 2, 20],
    ("IDs", 2): [5, 9, 1, 30],
    ("text", 1): [2, 1, 1, 5],
}
SECONDS = {"AlphaFuse": [1.0, 2.0], "IDs": [3.0], "text": [0.5]}
"""Seconds of each epoch."""


def _hits(ranks: list[int]) -> list[float]:
    return [float(rank <= 3) for rank in ranks]


def _ndcg(ranks: list[int]) -> list[float]:
    return [1 / math.log2(1 + rank) if rank <= 10 else 0.0 for rank in ranks]


METRICS = {"ndcg@10": _ndcg, "hr@3": _hits}
GRID = GridConfig(base="b", workspace="w", metrics=tuple(METRICS), methods=({"name": "AlphaFuse"},), seeds=(1, 2))


def _slice(ranks: list[int]) -> dict[str, float]:
    return {"queries": len(ranks), **{name: statistics.mean(gain(ranks)) for name, gain in METRICS.items()}}


def _details(row: str, ranks: list[int]) -> dict[str, Any]:
    return {"history": [{"seconds": value} for value in SECONDS[row]], "best": {"value": 1 / sum(ranks)}}


def finished_run(folder: Path, row: str, ranks: list[int], baseline: list[int] | None = None) -> FinishedRun:
    """Write a workspace with a model and an evaluation in which the targets have these ranks."""
    workspace, inputs = Workspace(str(folder)), {"made by": "hand"}
    evaluation = workspace.artifact("evaluation")
    table = pa.table([USERS, [1] * 4, range(4), ranks], SCHEMA)
    evaluation.write_table(FILE, table, fingerprint(inputs))
    metrics: dict[str, Any] = {
        "split": "test",
        "similarity": "cosine" if row != "IDs" else "dot",
        "exclude_seen": True,
        "queries": 4,
        "num_items": 1234,
        **_measured(ranks),
    }
    if baseline is not None:
        metrics["baselines"] = {"recent_popularity": _measured(baseline)}
    evaluation.write_file("metrics.json", json.dumps(metrics).encode(), fingerprint(inputs))
    evaluation.commit(inputs)
    workspace.artifact("model").commit(inputs, _details(row, ranks))
    return FinishedRun(workspace, [workspace])


def _measured(ranks: list[int]) -> dict[str, Any]:
    """Metrics over all queries and in slices."""
    return {
        "overall": {name: statistics.mean(gain(ranks)) for name, gain in METRICS.items()},
        "slices": {
            "items": {"tail": _slice(ranks[2:]), "held_out": {"queries": 0, **dict.fromkeys(METRICS)}},
            "histories": {"short": _slice(ranks[:1])},
        },
    }


def hand_made_comparison(folder: Path, baseline: list[int] | None = None) -> Comparison:
    """Compare two methods with two seeds, one with one seed, an ensemble of two, and a method that failed.

    Args:
        baseline: ranks of the targets by recent popularity; None: the evaluations were made without.
    """
    rows: dict[str, dict[int, FinishedRun]] = {"AlphaFuse": {}, "IDs": {}, "text": {}, "broken": {}}
    for (row, seed), ranks in RANKS.items():
        rows[row][seed] = finished_run(folder / f"{row}-{seed}", row, ranks, baseline)
    rows["both"] = {1: FinishedRun(rows["text"][1].evaluation, [rows[name][1].evaluation for name in ("IDs", "text")])}
    return compare_methods(GRID, {"AlphaFuse": tiny_config(folder)}, rows, {"broken-1": "no\ntexts"})


def comparison_without_common_seeds(folder: Path) -> Comparison:
    """Compare AlphaFuse with seed 1 and IDs with seed 2."""
    rows = {
        name: {seed: finished_run(folder / f"{name}-{seed}", name, RANKS[name, seed])}
        for name, seed in (("AlphaFuse", 1), ("IDs", 2))
    }
    return compare_methods(GRID, {"AlphaFuse": tiny_config(folder)}, rows, {})
