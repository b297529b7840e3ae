"""Reads Parquet files of a folder, as a whole or in blocks. Footers are compared with the file's record, pages with
their checksums, and reading is repeated if storage fails for a moment.

All functions raise what pyarrow raises for files that are missing, damaged, other ones or without a column
(`NOT_READABLE`).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alphafuse.storage.filesystem.folder import Folder, retried
from alphafuse.storage.filesystem.retries import attempts
from alphafuse.storage.manifest import FileRecord

NOT_READABLE = (OSError, pa.ArrowException, KeyError)
MAGIC = b"PAR1"
TAIL_BYTES = 64 * 2**10
"""Bytes that are read first from the end of a file; most footers lie in them."""

T = TypeVar("T")


@retried
def read_parquet(folder: Folder, file: FileRecord, read: Callable[[pq.ParquetFile], T]) -> T:
    """Apply `read` to a file and return its result; `read` may be called several times."""
    with _opened(folder, file) as parquet:
        return read(parquet)


def iterate_parquet(
    folder: Folder, file: FileRecord, column: str, groups: Sequence[int], block_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield a column of some row groups of a file, in blocks of at most `block_rows` rows.

    If storage fails for a moment, reading continues at the block that failed.
    """
    read = 0  # number of blocks
    for attempt in attempts():
        with attempt, _opened(folder, file) as parquet:
            blocks = parquet.iter_batches(block_rows, row_groups=list(groups), columns=[column])
            for block in itertools.islice(blocks, read, None):
                read += 1
                yield block


def group_rows(parquet: pq.ParquetFile) -> list[int]:
    """Number of rows of each row group of a file."""
    return [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]


def read_range(parquet: pq.ParquetFile, column: str, first: int, stop: int) -> pa.ChunkedArray:
    """Read the rows [first, stop) of a column of a file; reads only the row groups that hold them."""
    starts = np.cumsum([0, *group_rows(parquet)])
    groups = np.flatnonzero((starts[:-1] < stop) & (starts[1:] > first)).tolist()
    before = starts[groups[0]] if groups else 0
    return parquet.read_row_groups(groups, columns=[column])[column].slice(first - before, stop - first)


def take_rows(parquet: pq.ParquetFile, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
    """Read some rows of a file, in the given order; reads only the row groups that hold them."""
    starts = np.cumsum([0, *group_rows(parquet)])
    groups = np.searchsorted(starts, rows, side="right") - 1
    needed, index = np.unique(groups, return_inverse=True)
    table = parquet.read_row_groups(needed.tolist(), columns=list(columns))
    before = np.cumsum([0, *np.diff(starts)[needed]])[index]  # number of rows read before the row's group
    return table.take(pa.array(before + rows - starts[groups]))


def footer_hash(stream: pa.NativeFile) -> str:
    """SHA-256 of the footer of a Parquet file.

    Raises:
        ArrowInvalid: this is no Parquet file.
    """
    return hashlib.sha256(_footer(stream)).hexdigest()


def _footer(stream: pa.NativeFile) -> bytes:
    """The end of a Parquet file, from the first byte of its footer on."""
    size = stream.size()
    tail = _end_of(stream, size, TAIL_BYTES)
    if len(tail) < 12 or tail[-4:] != MAGIC:
        raise pa.ArrowInvalid("it is not a whole Parquet file")
    footer_bytes = int.from_bytes(tail[-8:-4], "little") + 8
    if footer_bytes > size:
        raise pa.ArrowInvalid("it is not a whole Parquet file")
    return tail[-footer_bytes:] if footer_bytes <= len(tail) else _end_of(stream, size, footer_bytes)


def _end_of(stream: pa.NativeFile, size: int, count: int) -> bytes:
    stream.seek(max(0, size - count))
    return stream.read(count)


@contextmanager
def _opened(folder: Folder, file: FileRecord) -> Iterator[pq.ParquetFile]:
    filesystem, path = folder.open()
    with filesystem.open_input_file(f"{path}/{file.name}") as stream:
        if stream.size() != file.bytes:
            raise pa.ArrowInvalid(f"it has {stream.size()} bytes, its record says {file.bytes}")
        footer = _footer(stream)
        if file.footer and hashlib.sha256(footer).hexdigest() != file.footer:
            raise pa.ArrowInvalid("its content is not that of its record: it may be another file of this kind")
        metadata = pq.read_metadata(pa.BufferReader(footer))
        yield pq.ParquetFile(stream, metadata=metadata, page_checksum_verification=True)
