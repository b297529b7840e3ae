"""Calls are made at the same time; results come in the order of the arguments."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pyarrow as pa
import pytest
from support.servers.object_store import ObjectStore

from alphafuse.storage.filesystem.side_by_side import AT_A_TIME, side_by_side
from alphafuse.storage.workspace import Workspace


def test_calls_wait_together() -> None:
    together = threading.Barrier(AT_A_TIME, timeout=60)

    def square(number: int) -> int:
        together.wait()  # passes when as many wait
        return number * number

    assert side_by_side(square, range(2 * AT_A_TIME)) == [number * number for number in range(2 * AT_A_TIME)]
    assert side_by_side(square, []) == []


def test_an_error_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda number: 1 // number, [1, 0, 2])


def test_columns_of_files_in_a_bucket_are_read_together(bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact, files, threads = Workspace("s3://bucket/run").artifact("catalog"), 8, pa.cpu_count()
    for number in range(files):
        artifact.write_table(f"part-{number}.parquet", pa.table({"x": [number]}), "wanted", first_row=number)
    records = list(artifact.records().values())
    together = threading.Barrier(files, timeout=60)  # every answer waits until all files are asked for
    monkeypatch.setattr("support.servers.object_store.time", SimpleNamespace(sleep=lambda _: together.wait()))
    pa.set_cpu_count(1)
    try:
        columns = side_by_side(lambda record: artifact.read_column(record, "x"), records)
    finally:
        pa.set_cpu_count(threads)
    assert [column.to_pylist() for column in columns] == [[record.first_row] for record in records]
