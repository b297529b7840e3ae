"""External bucket sort: puts rows that do not fit into memory into buckets by a hash, on any storage.

A writer collects rows up to a budget and writes them as one run: an Arrow file with one record batch per bucket. A
bucket is read from all runs; its rows are in the order in which they were written. Knows nothing of the columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from alphafuse.data.hashing import bucket_of
from alphafuse.storage.filesystem.folder import Folder, retried
from alphafuse.storage.manifest import read_json_object

RUN_BYTES = 128 * 2**20
BATCH_ROWS = 8192


class RunWriter:
    """Writes the runs of one source.

    Args:
        folder: folder of the runs.
        prefix: beginning of the names of the runs.
        num_buckets: number of buckets.
        run_bytes: bytes of rows that are held in memory before they are written.
    """

    def __init__(self, folder: Folder, prefix: str, num_buckets: int, run_bytes: int = RUN_BYTES) -> None:
        self.names: list[str] = []
        self._folder = folder
        self._prefix = prefix
        self._num_buckets = num_buckets
        self._run_bytes = run_bytes
        self._tables: list[pa.Table] = []
        self._hashes: list[np.ndarray] = []
        self._bytes = 0

    def add(self, table: pa.Table, hashes: np.ndarray) -> None:
        """Append rows; each is put into the bucket of its hash."""
        self._tables.append(table)
        self._hashes.append(hashes)
        self._bytes += table.nbytes
        if self._bytes >= self._run_bytes:
            self._flush()

    def close(self) -> list[str]:
        """Write the remaining rows and return the names of all runs, in the order of their rows."""
        if self._tables:
            self._flush()
        return self.names

    def _flush(self) -> None:
        buckets = bucket_of(np.concatenate(self._hashes), self._num_buckets)
        order = np.argsort(buckets, kind="stable")
        table = pa.concat_tables(self._tables).take(pa.array(order)).combine_chunks()
        ends = np.cumsum(np.bincount(buckets, minlength=self._num_buckets))
        parts = [table.slice(end - rows, rows) for rows, end in zip(np.diff(ends, prepend=0), ends, strict=True)]
        name = f"{self._prefix}-{len(self.names):05d}.arrow"
        _write(self._folder, name, table.schema, [_as_batch(part) for part in parts])
        self.names.append(name)
        self._tables, self._hashes, self._bytes = [], [], 0


@retried
def read_bucket(folder: Folder, runs: Sequence[str], bucket: int) -> pa.Table | None:
    """Rows of a bucket, in the order in which they were added to the runs; None if there are no runs."""
    batches = []
    for run in runs:
        with _opened(folder, run) as reader:
            batches.append(reader.get_batch(bucket))
    return pa.Table.from_batches(batches) if batches else None


def write_rows(folder: Folder, name: str, table: pa.Table) -> None:
    """Write a table so that `read_rows` finds any range of its rows."""
    batches = [_as_batch(table.slice(first, BATCH_ROWS)) for first in range(0, table.num_rows, BATCH_ROWS)]
    _write(folder, name, table.schema, batches)


@retried
def read_rows(folder: Folder, files: Sequence[tuple[str, int]], start: int, stop: int) -> pa.Table:
    """Rows [start, stop), at least one, of the concatenation of several files, given as (name, number of rows)."""
    batches = []
    first = 0
    for name, rows in files:
        low, high = max(start - first, 0), min(stop - first, rows)
        first += rows
        if low >= high:
            continue
        with _opened(folder, name) as reader:
            for number in range(low // BATCH_ROWS, (high - 1) // BATCH_ROWS + 1):
                begin = number * BATCH_ROWS
                batch = reader.get_batch(number)
                inside = slice(max(low - begin, 0), min(high - begin, batch.num_rows))
                batches.append(batch.slice(inside.start, inside.stop - inside.start))
    return pa.Table.from_batches(batches)


@retried
def read_columns(folder: Folder, name: str, columns: Sequence[str]) -> pa.Table:
    """All rows of a file, with some of its columns."""
    filesystem, path = folder.open()
    with filesystem.open_input_file(f"{path}/{name}") as stream:
        schema = pa.ipc.open_file(stream).schema
        chosen = [schema.get_field_index(column) for column in columns]
        options = pa.ipc.IpcReadOptions(included_fields=chosen)
        return pa.ipc.open_file(stream, options=options).read_all().select(list(columns))


def once(folder: Folder, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the result of `make`, kept as the JSON file `name`; `make` is not called where that is there and whole."""
    if folder.exists(name):
        with suppress(ValueError):
            return read_json_object(folder.read_bytes(name))
    result = make()
    folder.write_bytes(name, json.dumps(result).encode())
    return result


def _as_batch(table: pa.Table) -> pa.RecordBatch:
    """The table as one record batch, even if it has no rows."""
    columns = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def _write(folder: Folder, name: str, schema: pa.Schema, batches: Sequence[pa.RecordBatch]) -> None:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    folder.write_bytes(name, sink.getvalue())


@contextmanager
def _opened(folder: Folder, name: str) -> Iterator[pa.ipc.RecordBatchFileReader]:
    filesystem, path = folder.open()
    with filesystem.open_input_file(f"{path}/{name}") as stream:
        yield pa.ipc.open_file(stream)
