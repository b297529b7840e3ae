"""The time from which interactions are recent, beside the quantile of all times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest

from alphafuse.config import SplitConfig
from alphafuse.data.preparation.recency import POINTS, TimeSketch, recent_cut, sketch_times
from alphafuse.storage.filesystem.folder import Folder


def _write(folder: Path, name: str, times: list[list[float]]) -> None:
    table = pa.table({"times": pa.array(times, pa.list_(pa.float64()))})
    with pa.ipc.new_file(str(folder / name), table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(("split", "share"), [({"kind": "leave_one_out"}, 0.9), ({"kind": "temporal"}, 0.9 * 0.8)])
def test_a_tenth_of_what_trains_is_recent(tmp_path: Path, split: dict[str, str], share: float) -> None:
    generator = np.random.default_rng(0)
    parts = [generator.exponential(1e6, size) for size in (50_000, 3, 9_000)]
    for number, part in enumerate(parts):
        users = [part[::2].tolist(), [], part[1::2].tolist(), [float("nan")] * 3]
        _write(tmp_path, f"{number}.arrow", users)
    sketches = [sketch_times(Folder(str(tmp_path)), f"{number}.arrow") for number in range(3)]
    assert [sketch.count for sketch in sketches] == [50_000, 3, 9_000]
    assert [len(sketch.points) for sketch in sketches] == [POINTS, 3, POINTS]
    cut = recent_cut(sketches, SplitConfig.model_validate(split))
    assert cut is not None
    assert (np.concatenate(parts) < cut).mean() == pytest.approx(share, abs=0.002)


def test_few_times_are_cut_exactly() -> None:
    sketches = [TimeSketch(0, np.zeros(0)), TimeSketch(10, np.arange(10.0)), TimeSketch(10, np.arange(10.0, 20.0))]
    assert recent_cut(sketches, SplitConfig(kind="users")) == 18  # two of twenty are recent
    assert recent_cut(sketches[:1], SplitConfig(kind="users")) is None
