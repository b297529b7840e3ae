"""The external bucket sort on local and remote storage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.data.hashing import bucket_of
from alphafuse.data.preparation.scratch import RunWriter, once, read_bucket, read_columns, read_rows, write_rows
from alphafuse.storage.filesystem.folder import Folder


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "scratch") if request.param == "local" else f"memory://{tmp_path.name}/scratch")


@pytest.mark.parametrize("run_bytes", [1, 3000, 2**30])
@pytest.mark.parametrize("num_buckets", [1, 5])
def test_buckets_hold_every_row_in_the_order_of_writing(folder: Folder, run_bytes: int, num_buckets: int) -> None:
    generator = np.random.default_rng(0)
    rows, runs = [], []
    for source in range(2):
        writer = RunWriter(folder, f"source-{source}", num_buckets, run_bytes)
        for _ in range(4):
            hashes = generator.integers(0, 2**64, 100, np.uint64)
            names = [f"row {len(rows) + number}" for number in range(100)]
            writer.add(pa.table({"hash": hashes, "name": names}), hashes)
            rows += zip(bucket_of(hashes, num_buckets).tolist(), names, strict=True)
        runs += writer.close()
    assert len(runs) == {1: 8, 3000: 4, 2**30: 2}[run_bytes]
    for bucket in range(num_buckets):
        table = read_bucket(folder, runs, bucket)
        assert table is not None
        assert table["name"].to_pylist() == [name for own, name in rows if own == bucket]


def test_a_source_without_rows_has_no_runs(folder: Folder) -> None:
    assert RunWriter(folder, "source", 3).close() == []
    assert read_bucket(folder, [], 0) is None


def test_rows_are_read_across_files_and_batches(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphafuse.data.preparation.scratch.BATCH_ROWS", 4)
    files, start = [], 0
    for number, rows in enumerate((10, 0, 4, 7)):
        table = pa.table({"value": pa.array(range(start, start + rows), pa.int64()), "other": ["x"] * rows})
        write_rows(folder, f"file-{number}", table.cast(pa.schema([("value", pa.int64()), ("other", pa.string())])))
        files.append((f"file-{number}", rows))
        start += rows
    for low in range(start):
        for high in range(low + 1, start + 1):
            assert read_rows(folder, files, low, high)["value"].to_pylist() == list(range(low, high))
    chosen = read_columns(folder, "file-3", ["other", "value"])
    assert chosen.column_names == ["other", "value"]
    assert chosen["value"].to_pylist() == list(range(14, 21))


def test_work_that_was_done_once_is_not_done_again(folder: Folder) -> None:
    calls = []

    def make() -> dict[str, int]:
        calls.append(1)
        return {"rows": 3}

    assert once(folder, "result.json", make) == once(folder, "result.json", make) == {"rows": 3}
    assert len(calls) == 1
