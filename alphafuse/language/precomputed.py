"""Embeddings that were made elsewhere: a Parquet file with ids and vectors, or a .npy matrix with a file of ids.

Owns reading, checking and looking up by item id. The matrix stays on disk and is mapped into memory; of each row
only a hash of its id is held.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from alphafuse.config import EmbedConfig
from alphafuse.errors import ConfigError, DataError
from alphafuse.language.encoder import Encoded, usable_vectors
from alphafuse.language.model import sha256
from alphafuse.storage import open_filesystem, resolve

NO_VECTOR = "no vector"
_BLOCK_ROWS = 8192


class PrecomputedVectors:
    """Vectors by item id. Use as a context manager: what had to be copied to disk is deleted at the end.

    Args:
        config: the section `embed`, with `precomputed` set.
        folder: what relative paths start from.

    Raises:
        ConfigError: .npy without `precomputed_ids`, or the other way round.
        DataError: a file is missing, truncated, or not what it should be; ids are missing or occur twice.
    """

    def __init__(self, config: EmbedConfig, folder: str) -> None:
        assert config.precomputed is not None
        self._config = config
        self._scratch = Path(tempfile.mkdtemp(prefix="alphafuse-precomputed-"))
        try:
            self._path = self._local(resolve(config.precomputed, folder))
            if self._path.suffix == ".npy":
                if config.precomputed_ids is None:
                    raise ConfigError("embed.precomputed is a .npy matrix: embed.precomputed_ids must name its ids")
                self._ids_path: Path | None = self._local(resolve(config.precomputed_ids, folder))
                self._matrix, self._ids = _read_npy(self._path, self._ids_path)
            else:
                if config.precomputed_ids is not None:
                    raise ConfigError("embed.precomputed_ids goes with a .npy matrix; Parquet has its own id column")
                self._ids_path = None
                self._matrix, self._ids = self._read_parquet()
            self._index = _index(self._ids, self._path)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PrecomputedVectors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def dim(self) -> int:
        return self._matrix.shape[1]

    def __len__(self) -> int:
        return len(self._matrix)

    def identity(self) -> dict[str, Any]:
        """Checksums of the files and how they are read."""
        return {
            "engine": "precomputed",
            "vectors": sha256(str(self._path)),
            "ids": sha256(str(self._ids_path)) if self._ids_path else None,
            "id_column": self._config.precomputed_id_column,
            "vector_column": self._config.precomputed_vector_column,
        }

    def lookup(self, item_ids: pa.ChunkedArray) -> Encoded:
        """The vectors of items, in the form in which they are stored."""
        rows = self._index.get_indexer(_hash(item_ids))
        found = np.flatnonzero(rows >= 0)
        same = self._ids.take(pa.array(rows[found])).to_numpy(zero_copy_only=False)
        found = found[same == item_ids.take(pa.array(found)).to_numpy()]  # equal hashes are not yet equal ids
        vectors = np.zeros((len(item_ids), self.dim), self._config.storage_dtype)
        usable = usable_vectors(self._matrix[rows[found]], self._config.normalize, self._config.storage_dtype)
        vectors[found] = usable.vectors
        missing = np.setdiff1d(np.arange(len(item_ids)), found)
        failures = {int(position): f"{NO_VECTOR}: the item is not among the precomputed" for position in missing}
        failures |= {int(found[position]): reason for position, reason in usable.failures.items()}
        return Encoded(vectors, failures)

    def _local(self, uri: str) -> Path:
        """The file itself where it is local, else a copy."""
        filesystem, path = open_filesystem(uri)
        if not filesystem.get_file_info(path).is_file:
            raise DataError(f"embed.precomputed: there is no file {uri}")
        if filesystem.type_name == "local":
            return Path(path)
        copy = self._scratch / Path(path).name
        with filesystem.open_input_stream(path) as source, open(copy, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 22)
        return copy

    def _read_parquet(self) -> tuple[np.ndarray, pa.Array]:
        """Unroll the vector column into a file that can be mapped: items ask for rows in any order."""
        id_column, vector_column = self._config.precomputed_id_column, self._config.precomputed_vector_column
        matrix: np.memmap | None = None
        ids: list[pa.Array] = []
        try:
            parquet = pq.ParquetFile(self._path)
            names = parquet.schema_arrow.names
            for column in (id_column, vector_column):
                if column not in names:
                    raise DataError(f"{self._path} has no column {column!r}; its columns: {', '.join(names)}")
            first = 0
            for batch in parquet.iter_batches(_BLOCK_ROWS, columns=[id_column, vector_column]):
                batch = batch.filter(batch.column(vector_column).is_valid())
                if not batch.num_rows:
                    continue
                ids.append(_as_strings(batch.column(id_column), self._path))
                block = _as_matrix(batch.column(vector_column), ids[-1], matrix, self._path)
                if matrix is None:
                    shape = (parquet.metadata.num_rows, block.shape[1])
                    matrix = np.memmap(self._scratch / "matrix", block.dtype, "w+", shape=shape)
                matrix[first : first + len(block)] = block
                first += len(block)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{self._path} cannot be read as Parquet: {error}") from error
        if matrix is None:
            raise DataError(f"{self._path} has no rows with a vector")
        return matrix[:first], pa.chunked_array(ids).combine_chunks()


def _read_npy(path: Path, ids_path: Path) -> tuple[np.ndarray, pa.Array]:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a .npy matrix: {error}") from error
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.size:
        raise DataError(f"{path}: expected a matrix of floats, found shape {matrix.shape} of {matrix.dtype}")
    try:
        ids = pa.array(_lines(ids_path))
    except UnicodeDecodeError as error:
        raise DataError(f"{ids_path} is not UTF-8 text: {error}") from error
    if len(ids) != len(matrix):
        raise DataError(f"{path} has {len(matrix)} rows, but {ids_path} has {len(ids)} ids")
    return matrix, ids


def _lines(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            yield line.rstrip("\r\n")


def _as_strings(column: pa.Array, path: Path) -> pa.Array:
    if column.null_count:
        raise DataError(f"{path}: {column.null_count} rows have no id")
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise DataError(f"{path}: ids must be strings or integers, found {kind}")
    return column.cast(pa.string())


def _as_matrix(column: pa.Array, ids: pa.Array, before: np.ndarray | None, path: Path) -> np.ndarray:
    """[rows, dim] of a column of lists that must all have the width of the rows before."""
    kind = column.type
    is_fixed = pa.types.is_fixed_size_list(kind)
    is_list = is_fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_floating(kind.value_type):
        raise DataError(f"{path}: the vectors must be lists of floats, found {kind}")
    widths = np.full(len(column), kind.list_size) if is_fixed else column.value_lengths().to_numpy()
    dim = before.shape[1] if before is not None else int(widths[0])
    if dim == 0:
        raise DataError(f"{path}: the vector of {ids[0].as_py()!r} is empty")
    if (widths != dim).any():
        wrong = int(np.flatnonzero(widths != dim)[0])
        item_id = ids[wrong].as_py()
        raise DataError(f"{path}: the vector of {item_id!r} has {widths[wrong]} numbers, those before it {dim}")
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)


def _hash(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return pd.util.hash_array(ids.to_numpy(zero_copy_only=False) if isinstance(ids, pa.Array) else ids.to_numpy())


def _index(ids: pa.Array, path: Path) -> pd.Index:
    """Hash of an id → row."""
    blocks = (ids.slice(first, _BLOCK_ROWS) for first in range(0, len(ids), _BLOCK_ROWS))
    index = pd.Index(np.concatenate([_hash(block) for block in blocks]))
    if not index.is_unique:
        twice = ids[int(np.flatnonzero(index.duplicated())[0])].as_py()
        raise DataError(f"{path}: {int(index.duplicated().sum())} ids occur twice, the first is {twice!r}")
    return index
