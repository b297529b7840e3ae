"""Reads Parquet files of a folder, as a whole or in blocks. Pages are compared with their checksums, and reading is
repeated if storage fails for a moment.

All functions raise what pyarrow raises for files that are missing, damaged or without a column (`NOT_READABLE`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alphafuse.storage.folder import Folder, retried
from alphafuse.storage.retries import attempts

NOT_READABLE = (OSError, pa.ArrowInvalid, KeyError)

T = TypeVar("T")


@retried
def read_parquet(folder: Folder, name: str, read: Callable[[pq.ParquetFile], T]) -> T:
    """Apply `read` to a file and return its result; `read` may be called several times."""
    with _opened(folder, name) as parquet:
        return read(parquet)


def iterate_parquet(
    folder: Folder, name: str, column: str, groups: Sequence[int], block_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield a column of some row groups of a file, in blocks of at most `block_rows` rows.

    If storage fails for a moment, reading continues at the block that failed.
    """
    read = 0  # number of blocks
    for attempt in attempts():
        with attempt, _opened(folder, name) as parquet:
            blocks = parquet.iter_batches(block_rows, row_groups=list(groups), columns=[column])
            for block in itertools.islice(blocks, read, None):
                read += 1
                yield block


def take_rows(parquet: pq.ParquetFile, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
    """Read some rows of a file, in the given order; reads only the row groups that hold them."""
    sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    starts = np.cumsum([0, *sizes])
    groups = np.searchsorted(starts, rows, side="right") - 1
    needed, index = np.unique(groups, return_inverse=True)
    table = parquet.read_row_groups(needed.tolist(), columns=list(columns))
    before = np.cumsum([0, *np.diff(starts)[needed]])[index]  # number of rows read before the row's group
    return table.take(pa.array(before + rows - starts[groups]))


@contextmanager
def _opened(folder: Folder, name: str) -> Iterator[pq.ParquetFile]:
    filesystem, path = folder.open()
    with filesystem.open_input_file(f"{path}/{name}") as stream:
        yield pq.ParquetFile(stream, page_checksum_verification=True)
