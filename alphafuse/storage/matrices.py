"""Stores matrices in artefacts: one row per item, as a column of vectors in Parquet shards.

Converts between numpy and Arrow, and reads ranges of rows in blocks, so that no process holds more rows than it asked
for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alphafuse.errors import WorkspaceError
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.manifest import FileRecord
from alphafuse.storage.parquet_files import group_rows


class VectorType(pa.ExtensionType):
    """Vectors of `dim` numbers of one dtype, stored as their bytes.

    Parquet encodes lists number by number; bytes are read ten times as fast (docs/performance.md). A program without
    this class reads binary values of fixed size, and gets the vector by `numpy.frombuffer(value, dtype)`.
    """

    def __init__(self, dtype: np.dtype, dim: int) -> None:
        self.dtype, self.dim = np.dtype(dtype).newbyteorder("<"), dim
        super().__init__(pa.binary(self.dtype.itemsize * dim), "alphafuse.vector")

    def __arrow_ext_serialize__(self) -> bytes:
        return json.dumps({"dtype": self.dtype.str, "dim": self.dim}).encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> VectorType:
        facts = json.loads(serialized)
        return cls(np.dtype(facts["dtype"]), facts["dim"])


pa.register_extension_type(VectorType(np.dtype(np.float32), 1))


def to_column(matrix: np.ndarray, missing: np.ndarray | None = None) -> pa.ExtensionArray:
    """Convert a matrix to an Arrow column.

    Args:
        matrix: [rows, dim], float16 or float32.
        missing: [rows] of bool, rows to store as null; None: no row is missing.
    """
    kind = VectorType(matrix.dtype, matrix.shape[1])
    values = pa.py_buffer(np.ascontiguousarray(matrix, kind.dtype))
    mask = None if missing is None or not missing.any() else pa.array(~missing).buffers()[1]
    storage = pa.Array.from_buffers(kind.storage_type, len(matrix), [mask, values])
    return pa.ExtensionArray.from_storage(kind, storage)


def to_lists(matrix: np.ndarray) -> pa.FixedSizeListArray:
    """Convert a matrix [rows, dim] to a column of lists, which any program can read, for exported files."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(matrix).reshape(-1)), matrix.shape[1])


def from_column(column: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Matrix [rows, dim] of an Arrow column, and the mask of its present rows ([rows] of bool); null rows are zeros.

    The matrix may be a view of the column's memory.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind, storage = column.type, column.storage
    values = storage.buffers()[1] or b""
    start = storage.offset * kind.dim * kind.dtype.itemsize
    matrix = np.frombuffer(values, kind.dtype, len(storage) * kind.dim, start).reshape(len(storage), kind.dim)
    present = storage.is_valid().to_numpy(zero_copy_only=False)
    if not present.all():
        matrix = np.where(present[:, None], matrix, matrix.dtype.type(0))
    return matrix, present


def iterate_rows(
    artifact: Artifact, column: str, start: int, stop: int, block_rows: int = 8192
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (first row, matrix [rows, dim], present [rows]) over the rows [start, stop), in order.

    Only the row groups that hold the range are read, a block at a time.

    Raises:
        WorkspaceError: a shard is missing, damaged or not a matrix.
    """
    for file in artifact.require().files:
        if file.first_row < stop and file.first_row + file.rows > start:
            yield from _iterate_file(artifact, file, column, start, stop, block_rows)


def read_rows(artifact: Artifact, column: str, start: int, stop: int) -> np.ndarray:
    """Read the rows [start, stop) as float32 [stop − start, dim]; rows without a value are zeros."""
    result: np.ndarray | None = None
    for first, block, _ in iterate_rows(artifact, column, start, stop):
        if result is None:
            result = np.zeros((stop - start, block.shape[1]), np.float32)
        result[first - start : first - start + len(block)] = block
    if result is None:
        raise WorkspaceError(f"{artifact.folder.uri} holds no rows in [{start}, {stop})")
    return result


def gather_rows(artifact: Artifact, column: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read some rows.

    Args:
        rows: int64 [count], ascending, at least one; only the row groups between the first and the last are read.

    Returns:
        Matrix [count, dim] of the stored dtype, and the mask of its present rows, [count] of bool; null rows are zeros.
    """
    blocks, masks = [], []
    for first, block, present in iterate_rows(artifact, column, int(rows[0]), int(rows[-1]) + 1):
        chosen = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + len(block))] - first
        blocks.append(block[chosen])
        masks.append(present[chosen])
    return np.concatenate(blocks), np.concatenate(masks)


def _iterate_file(
    artifact: Artifact, file: FileRecord, column: str, start: int, stop: int, block_rows: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    sizes = artifact.read_parquet(file, lambda parquet: _group_sizes(artifact, file, column, parquet))
    group_first, groups, first = file.first_row, [], None
    for group, rows in enumerate(sizes):
        if group_first < stop and group_first + rows > start:
            groups.append(group)
            first = group_first if first is None else first
        group_first += rows
    if first is None:
        return
    for batch in artifact.iterate_parquet(file, column, groups, block_rows):
        low, high = max(start - first, 0), min(stop - first, batch.num_rows)
        if low < high:
            yield first + low, *from_column(batch.column(0).slice(low, high - low))
        first += batch.num_rows


def _group_sizes(artifact: Artifact, file: FileRecord, column: str, parquet: pq.ParquetFile) -> list[int]:
    """Number of rows of each row group of a file; checks that `column` holds vectors."""
    if not isinstance(parquet.schema_arrow.field(column).type, VectorType):
        raise artifact.damaged(file.name, f"column {column!r} does not hold vectors")
    return group_rows(parquet)
