"""No plan and no part of a stage grows with the catalog in one process, but for the rank's own rows and what
docs/scaling.md lists."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.data import popularity
from alphafuse.data.popularity import FILE, count_trained_items, load_held_out
from alphafuse.data.sampling.negative_draws import shared_negatives, uniform_negatives
from alphafuse.distributed.row_partition import RowPartition
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from benchmarks.common.processes import peak_memory_mib, reset_peak_memory
from benchmarks.simulation import growth
from benchmarks.simulation.growth import measure_growth
from benchmarks.simulation.made_up_log import MadeUpLog
from benchmarks.simulation.stages import checkpoint_files
from benchmarks.simulation.training_steps import Model, play_training

FEW, MANY = 10**6, 10**9
LISTED = {
    "prepare: hashes of all items": 16,
    "prepare: popularity": 24,
    "prepare: items held out": 17,
    "embed: the plan": 81,
    "train: items that are no longer held out": 9,
    "train: popularity of negatives": 8,
    "evaluate: popularity, tail, lists, baseline": 41,
    "serving: ids and titles": 140,
}
"""Bytes of each item, as docs/scaling.md has them."""


def _peak(function: Callable[[], Any]) -> int:
    """Largest number of bytes of numpy and Python that a second call holds."""
    function()
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_steps_of_a_training() -> None:
    config = tiny_config(Path("unused"), batch_size=256, loss={"num_negatives": 512})

    def steps(items: int) -> Callable[[], Any]:
        return lambda: play_training(config.train, Model(items, 128, 64, 10), MadeUpLog(items, 9000, 10), 0, 4, 2)

    few, many = _peak(steps(FEW)), _peak(steps(MANY))
    assert many < 1.1 * few  # a few more rows are distinct


def test_the_negatives_of_a_step() -> None:
    def draw(items: int) -> Callable[[], Any]:
        targets = np.arange(1000)
        return lambda: (shared_negatives(0, 1, 4096, items), uniform_negatives(0, 1, 0, targets, 64, items))

    assert abs(_peak(draw(MANY)) - _peak(draw(FEW))) < 1000


def test_the_ranges_of_the_ranks() -> None:
    def ranges(items: int) -> Callable[[], Any]:
        partition = RowPartition(items, 64)
        asked = np.linspace(0, items - 1, 5000).astype(np.int64)
        return lambda: ([partition.range(rank) for rank in range(64)], partition.counts(asked))

    assert abs(_peak(ranges(MANY)) - _peak(ranges(FEW))) < 10_000


def test_the_files_of_a_checkpoint_are_planned_without_their_memory() -> None:
    checkpoint_files(FEW, 64, 0, 64)
    reset_peak_memory()
    before = peak_memory_mib()
    sizes = checkpoint_files(MANY, 64, 0, 64)
    assert sum(sizes) > 12 * 64 * MANY / 64
    assert peak_memory_mib() - before < 64


def test_held_out_items_of_a_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(popularity, "BLOCK_ROWS", 2**13)
    peaks: list[list[int]] = []
    for items in (2**15, 2**21):
        artifact = Workspace(str(tmp_path / str(items))).artifact("popularity")
        held_out = np.arange(items) % 10 == 0
        artifact.write_table(FILE, pa.table({"held_out": held_out}), fingerprint({}))
        artifact.commit({})
        workspace = Workspace(str(tmp_path / str(items)))
        own = _peak(lambda workspace=workspace: load_held_out(workspace, 9000, 12_000))  # type: ignore[misc]
        peaks.append([own, _peak(lambda workspace=workspace: count_trained_items(workspace))])  # type: ignore[misc]
    end = 2**17  # of a file, which is read to find its row groups
    assert all(many < few + end for few, many in zip(*peaks, strict=True))


def test_what_grows_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "SIZES", (2**14, 2**15))
    grown = {each.name: each.bytes for each in measure_growth()}
    assert grown.keys() == LISTED.keys()
    too_much = {name: each for name, each in grown.items() if each > 1.2 * LISTED[name]}  # shards are small here
    assert not too_much
