"""Reads embeddings that were made elsewhere: Parquet files with ids and vectors, or a .npy matrix with a file of ids.

Checks the vectors and matches them to items by id. Vectors are put into buckets by the hash of their id. The catalog
has the same order, so that a shard of items needs few buckets, and a process holds one bucket at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from tokenize import TokenError
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from alphafuse.config import EmbedConfig, SourceConfig
from alphafuse.data.hashing import bucket_of, hash_ids
from alphafuse.data.importers.columns import as_ids
from alphafuse.data.importers.source import Source, find_sources
from alphafuse.data.preparation.scratch import RunWriter, read_bucket
from alphafuse.errors import ConfigError, DataError
from alphafuse.language.text_encoders.encoder import Encoded, usable_vectors
from alphafuse.storage.filesystem.folder import Folder, open_filesystem
from alphafuse.storage.matrices import from_column, to_column

NO_VECTOR = "no vector"
_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class PrecomputedFiles:
    """The files that the section `embed` names.

    Attributes:
        vectors: Parquet files, or one .npy matrix.
        ids: file with the ids of the .npy matrix; None for Parquet files.
        id_column, vector_column: names of the columns of the Parquet files.
    """

    vectors: list[Source]
    ids: Source | None
    id_column: str
    vector_column: str

    def identity(self) -> dict[str, Any]:
        """Everything that the vectors depend on, for the manifest."""
        return {
            "engine": "precomputed",
            "vectors": [source.identity for source in self.vectors],
            "ids": self.ids.identity if self.ids else None,
            "id_column": self.id_column,
            "vector_column": self.vector_column,
        }

    def read(self, source: Source) -> Iterator[tuple[pa.Array, np.ndarray]]:
        """Yield ids (strings) and vectors [rows, dim] of one file, a block at a time; rows without a vector are left
        out.

        Raises:
            DataError: the file is damaged or has another form, or an id is missing.
        """
        return self._read_parquet(source) if self.ids is None else _read_npy(source.uri, self.ids.uri)

    def look(self) -> None:
        """Check the first rows of the first Parquet file, or the header of the matrix.

        Raises:
            DataError: they are damaged or have another form, or an id is missing.
        """
        first = self.vectors[0]
        if self.ids is None:
            next(self.read(first), None)
            return
        filesystem, path = open_filesystem(first.uri)
        with filesystem.open_input_file(path) as stream:
            _npy_header(stream, first.uri)

    def _read_parquet(self, source: Source) -> Iterator[tuple[pa.Array, np.ndarray]]:
        dim = None
        for table in source.read([self.id_column, self.vector_column]):
            rows = table.filter(table[self.vector_column].is_valid())
            if rows.num_rows:
                ids = _require_ids(as_ids(rows[self.id_column], source.uri, self.id_column), source.uri)
                vectors = _as_matrix(rows[self.vector_column].combine_chunks(), ids, dim, source.uri)
                dim = vectors.shape[1]
                yield ids, vectors


def find_precomputed(config: EmbedConfig, folder: str) -> PrecomputedFiles:
    """Find the files of `embed.precomputed`, and look at the first rows.

    Args:
        folder: folder or URI that relative paths start from.

    Raises:
        ConfigError: .npy without `precomputed_ids`, or the other way round.
        DataError: nothing is there, or a file is damaged, lacks a column, or has one of another type.
    """
    assert config.precomputed is not None
    is_matrix = config.precomputed.endswith(".npy")
    if is_matrix and config.precomputed_ids is None:
        raise ConfigError("embed.precomputed is a .npy matrix: embed.precomputed_ids must name its ids")
    if not is_matrix and config.precomputed_ids is not None:
        raise ConfigError("embed.precomputed_ids goes with a .npy matrix; Parquet has its own id column")
    ids = None
    if config.precomputed_ids is not None:
        ids = find_sources("embed.precomputed_ids", SourceConfig(path=config.precomputed_ids, format="csv"), folder)[0]
    # "parquet" stands for any format: a .npy matrix is read by this module, and not by the source.
    vectors = find_sources(
        "embed.precomputed", SourceConfig(path=config.precomputed, format="parquet" if is_matrix else "auto"), folder
    )
    files = PrecomputedFiles(vectors, ids, config.precomputed_id_column, config.precomputed_vector_column)
    if vectors[0].format != "parquet":
        raise DataError(f"embed.precomputed: {vectors[0].uri} is neither Parquet nor a .npy matrix")
    files.look()
    return files


def partition_vectors(
    files: PrecomputedFiles, source: Source, scratch: Folder, prefix: str, num_buckets: int
) -> dict[str, Any]:
    """Read one file and write its vectors as runs (columns item_id, vector).

    Returns:
        `runs`, the names of the runs; `rows`; `dim` and `example`, the first id, None without rows.
    """
    writer = RunWriter(scratch, prefix, num_buckets)
    rows, dim, example = 0, None, None
    for ids, vectors in files.read(source):
        example = example or ids[0].as_py()
        writer.add(pa.table({"item_id": ids, "vector": to_column(vectors)}), hash_ids(ids))
        rows, dim = rows + len(ids), vectors.shape[1]
    return {"runs": writer.close(), "rows": rows, "dim": dim, "example": example}


def common_dim(files: PrecomputedFiles, partitions: Sequence[Mapping[str, Any]]) -> int:
    """The width of the vectors, which must be the same in all files.

    Args:
        partitions: results of `partition_vectors` for each file.

    Raises:
        DataError: there are no vectors, or files differ.
    """
    dims = {part["dim"]: source.uri for part, source in zip(partitions, files.vectors, strict=True) if part["rows"]}
    if not dims:
        raise DataError(f"embed.precomputed: {files.vectors[0].uri} has no rows with a vector")
    if len(dims) > 1:
        found = ", ".join(f"{dim} numbers in {uri}" for dim, uri in dims.items())
        raise DataError(f"embed.precomputed: the vectors of the files have different lengths: {found}")
    return next(iter(dims))


def match_vectors(
    item_ids: pa.Array, scratch: Folder, runs: Sequence[str], num_buckets: int, dim: int, config: EmbedConfig
) -> tuple[Encoded, int]:
    """Find the vectors of items, in the form in which they are stored; items without a vector are failures.

    An id may stand in the files several times with the same vector, as rows of a catalog do from which they were made.

    Args:
        item_ids: strings. Items whose hashes are close to each other, such as those of a shard, need few buckets.

    Returns:
        The vectors, and the number of rows that repeat the vector of one of these items.

    Raises:
        DataError: an id stands in the files with different vectors.
    """
    repeats = 0
    buckets = bucket_of(hash_ids(item_ids), num_buckets)
    vectors = np.zeros((len(item_ids), dim), config.storage_dtype)
    failures: dict[int, str] = {}
    order = np.argsort(buckets, kind="stable")
    used, starts = np.unique(buckets[order], return_index=True)
    for bucket, items in zip(used, np.split(order, starts[1:]), strict=True):
        table = read_bucket(scratch, runs, int(bucket))
        assert table is not None
        wanted = item_ids.take(pa.array(items))
        index, matrix = pd.Index(table["item_id"].to_pylist()), from_column(table["vector"])[0]
        if not index.is_unique:
            _require_same_vectors(index, matrix, config)
            is_first = ~index.duplicated()
            repeats += int(np.count_nonzero(index[~is_first].isin(wanted.to_pylist())))
            index, matrix = index[is_first], matrix[is_first]
        rows = index.get_indexer(wanted.to_pylist())
        found = items[rows >= 0]
        matrix = matrix[rows[rows >= 0]]
        usable = usable_vectors(matrix, config.normalize, config.storage_dtype)
        vectors[found] = usable.vectors
        failures |= {int(item): f"{NO_VECTOR}: the item is not among the precomputed" for item in items[rows < 0]}
        failures |= {int(found[position]): reason for position, reason in usable.failures.items()}
    return Encoded(vectors, failures), repeats


def _require_same_vectors(index: pd.Index, matrix: np.ndarray, config: EmbedConfig) -> None:
    """Check that all rows of an id have one vector."""
    codes = pd.factorize(index)[0]
    first = np.unique(codes, return_index=True)[1]
    differs = ~np.isclose(matrix, matrix[first[codes]], rtol=1e-6, atol=0, equal_nan=True).all(axis=1)
    if differs.any():
        wrong = int(np.argmax(differs))
        raise DataError(
            f"embed.precomputed ({config.precomputed}): the id {index[wrong]!r} stands there twice, with "
            f"vectors that differ ({_beginning(matrix[first[codes[wrong]]])} and {_beginning(matrix[wrong])}), and "
            f"{int(differs.sum()) - 1} other rows likewise. Keep the row of each id that counts"
        )


def _beginning(vector: np.ndarray) -> str:
    return f"[{', '.join(f'{number:.4g}' for number in vector[:3])}, …]"


def _read_npy(uri: str, ids_uri: str) -> Iterator[tuple[pa.Array, np.ndarray]]:
    filesystem, path = open_filesystem(uri)
    with filesystem.open_input_file(path) as stream:
        shape, dtype, offset = _npy_header(stream, uri)
        row_bytes = shape[1] * dtype.itemsize
        if stream.size() != offset + shape[0] * row_bytes:
            raise DataError(f"{uri} cannot be read as a .npy matrix: it is truncated")
        ids = _read_lines(ids_uri)
        if len(ids) != shape[0]:
            raise DataError(f"{uri} has {shape[0]} rows, but {ids_uri} has {len(ids)} ids")
        for first in range(0, shape[0], _BLOCK_ROWS):
            rows = min(_BLOCK_ROWS, shape[0] - first)
            block = np.frombuffer(stream.read_at(rows * row_bytes, offset + first * row_bytes), dtype)
            yield ids.slice(first, rows), block.reshape(rows, shape[1])


def _npy_header(stream: pa.NativeFile, uri: str) -> tuple[tuple[int, int], np.dtype, int]:
    """Shape and dtype of the matrix, and the offset of its first number in the file."""
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(stream)
    except (ValueError, TypeError, SyntaxError, TokenError) as error:  # numpy reads the header as Python
        raise DataError(f"{uri} cannot be read as a .npy matrix: {error}") from error
    if dtype.hasobject:
        raise DataError(f"{uri} cannot be read as a .npy matrix: it holds Python objects")
    if len(shape) != 2 or dtype.kind != "f" or 0 in shape or fortran_order:
        order = " in Fortran order" if fortran_order else ""
        raise DataError(f"{uri}: expected a matrix of floats, rows first, found shape {shape} of {dtype}{order}")
    return shape, dtype, stream.tell()


def _read_lines(uri: str) -> pa.Array:
    filesystem, path = open_filesystem(uri)
    with filesystem.open_input_stream(path) as stream:
        try:
            text = stream.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{uri} is not UTF-8 text: {error}") from error
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    return _require_ids(as_ids(pa.chunked_array([lines]), uri, "line"), uri)


def _require_ids(ids: pa.Array, uri: str) -> pa.Array:
    if ids.null_count:
        raise DataError(f"{uri}: {ids.null_count} rows have no id")
    return ids


def _as_matrix(column: pa.Array, ids: pa.Array, dim: int | None, uri: str) -> np.ndarray:
    """Matrix [rows, dim] of a column of lists, all of which must have the width of the rows before."""
    kind = column.type
    is_fixed = pa.types.is_fixed_size_list(kind)
    is_list = is_fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_floating(kind.value_type):
        raise DataError(
            f"{uri}: the vectors must be lists of floats, found {kind}. Write them as lists of float32, all of "
            f"one length"
        )
    widths = np.full(len(column), kind.list_size) if is_fixed else column.value_lengths().to_numpy()
    dim = int(widths[0]) if dim is None else dim
    if dim == 0:
        raise DataError(f"{uri}: the vector of {ids[0].as_py()!r} is empty")
    if (widths != dim).any():
        wrong = int(np.flatnonzero(widths != dim)[0])
        raise DataError(
            f"{uri}: the vector of {ids[wrong].as_py()!r} has {widths[wrong]} numbers, those before it {dim}"
        )
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
