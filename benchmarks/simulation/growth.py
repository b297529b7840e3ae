"""Measures what grows with the catalog in one process beside a rank's own rows: bytes for each item.

Every function is called at two sizes; the difference of the peaks is what an item takes, in arrays of numpy and objects
of Python. What Arrow holds while a file is read or written comes on top.
"""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from alphafuse.config import EvaluateConfig, SplitConfig
from alphafuse.data.popularity import FILE, HELD_OUT, RECENT, load_held_out, load_popularity, load_trained_items
from alphafuse.data.preparation.catalog import load_item_hashes
from alphafuse.data.preparation.sequence_shards import find_cold_items, write_popularity
from alphafuse.evaluation.ranking.popularity_ranking import PopularityRanking
from alphafuse.evaluation.ranking_metrics import CatalogUse, tail_items
from alphafuse.language.plan import make_plan
from alphafuse.serving.exported_items import ExportedItems
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace

SIZES = (2**17, 2**18)
EVALUATION = "evaluate: popularity, tail, lists, baseline"
"""Name of what every rank of an evaluation holds."""


@dataclass(frozen=True)
class Grown:
    """Something that grows with the catalog.

    Attributes:
        process: the process that holds it.
        where: the file that makes it.
        needed: settings without which it is not made; empty: always.
        bytes: peak for each item.
    """

    name: str
    process: str
    where: str
    needed: str
    bytes: float


def measure_growth() -> list[Grown]:
    """Measure all of them."""
    split = SplitConfig(cold_items=0.1)
    cases: list[tuple[str, str, str, str, Callable[[Workspace, int], Any]]] = [
        (
            "prepare: hashes of all items",
            "one task; then once in the object store of each machine",
            "data/preparation/catalog.py: load_item_hashes",
            "",
            lambda workspace, items: load_item_hashes(workspace.artifact("catalog")),
        ),
        (
            "prepare: popularity",
            "one task",
            "data/preparation/sequence_shards.py: write_popularity",
            "",
            lambda workspace, items: write_popularity(workspace, fingerprint({}), items, None),
        ),
        (
            "prepare: items held out",
            "one task; the mask in the object store of each machine",
            "data/preparation/sequence_shards.py: find_cold_items",
            "data.split.cold_items",
            lambda workspace, items: find_cold_items(workspace.artifact("catalog"), split, 0),
        ),
        ("embed: the plan", "driver", "language/plan.py: make_plan", "engines", lambda workspace, items: _plan(items)),
        (
            "train: items that are no longer held out",
            "each rank",
            "data/popularity.py: load_trained_items",
            "data.split.cold_items",
            lambda workspace, items: load_trained_items(workspace),
        ),
        (
            "train: popularity of negatives",
            "each rank",
            "training/negative_sampler.py: NegativeSampler",
            "train.loss.negatives: in_batch",
            lambda workspace, items: _frequency(workspace),
        ),
        (
            EVALUATION,
            "each rank",
            "evaluation/evaluator.py: evaluate",
            "",
            lambda workspace, items: _evaluate(workspace),
        ),
        (
            "serving: ids and titles",
            "each replica",
            "serving/exported_items.py: ExportedItems",
            "",
            lambda workspace, items: _serve(workspace),
        ),
    ]
    return [
        Grown(name, process, where, needed, _bytes_per_item(function))
        for name, process, where, needed, function in cases
    ]


def _bytes_per_item(function: Callable[[Workspace, int], Any]) -> float:
    peaks = []
    for items in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            workspace = _workspace(folder, items)
            function(workspace, items)  # what is made once, such as imports, counts for no item
            peaks.append(_peak(lambda workspace=workspace, items=items: function(workspace, items)))  # type: ignore[misc]
    return (peaks[1] - peaks[0]) / (SIZES[1] - SIZES[0])


def _peak(function: Callable[[], Any]) -> int:
    """Largest number of bytes of numpy and Python while a function runs."""
    # One shard at a time: those that threads hold meanwhile are as many at any size.
    with patch("alphafuse.storage.filesystem.side_by_side.AT_A_TIME", 1):
        tracemalloc.start()
        try:
            kept = function()
            peak = tracemalloc.get_traced_memory()[1]
            del kept
        finally:
            tracemalloc.stop()
    return peak


def _workspace(folder: str, items: int) -> Workspace:
    """Catalog, a short log and popularities."""
    workspace, wanted, shard_rows = Workspace(folder), fingerprint({}), 2**10
    counts = np.arange(items) % 1000
    catalog = workspace.artifact("catalog")
    for first in range(0, items, shard_rows):
        rows = range(first, first + shard_rows)
        names = [f"item-{row:010d}" for row in rows]
        table = pa.table({"item_index": rows, "item_id": names, "title": [f"The title of {name}" for name in names]})
        catalog.write_table(f"part-{first}.parquet", table, wanted, first_row=first)
    catalog.commit({}, rows=items)
    ends = pa.array([2], pa.int32())
    columns = {"user_id": ["a"], "items": pa.array([[0, 1]]), "train_end": ends, "validation_end": ends}
    users = pa.table(columns).append_column("recent_start", pa.array([0], pa.int32()))
    workspace.artifact("sequences").write_table("part-0.parquet", users, wanted)
    workspace.artifact("sequences").commit({})
    popularity = pa.table({"item_index": np.arange(items), "count": counts, RECENT: counts, HELD_OUT: counts % 9 == 0})
    workspace.artifact("popularity").write_table(FILE, popularity, wanted)
    workspace.artifact("popularity").commit({})
    return workspace


def _plan(items: int) -> Any:
    hashes = np.random.default_rng(0).integers(0, 2**63, (items, 2)).astype(np.uint64)
    return make_plan([], np.split(hashes, 4), 512)


def _frequency(workspace: Workspace) -> Any:
    popularity = load_popularity(workspace)
    return popularity, popularity / popularity.sum()  # as `NegativeSampler` keeps it


def _evaluate(workspace: Workspace) -> Any:
    """Arrays that `evaluate` makes from the popularity before the first query, without those of the recent one."""
    popularity, held_out, config = load_popularity(workspace), load_held_out(workspace), EvaluateConfig()
    tail = tail_items(popularity, config.tail_share)
    return popularity, held_out, tail, CatalogUse(popularity, tail, config.cutoffs), PopularityRanking(popularity)


def _serve(workspace: Workspace) -> Any:
    catalog = workspace.artifact("catalog")
    tables = [catalog.read_table(file, ["item_id", "title"]) for file in catalog.require().files]
    return ExportedItems(pa.concat_tables(tables))
