"""Reads Parquet files, a few thousand rows at a time and only the columns that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from alphafuse.config import SourceConfig
from alphafuse.data.importers.damage import readable
from alphafuse.errors import DataError
from alphafuse.storage.filesystem.folder import open_filesystem

OPTIONS: frozenset[str] = frozenset()
"""Settings beside `path` that this format knows."""
_BATCH_ROWS = 8192  # small enough for rows with a vector


def column_names(uri: str, options: SourceConfig) -> list[str]:
    """Names of the columns of a file.

    Raises:
        DataError: the file is damaged, or no Parquet.
    """
    filesystem, path = open_filesystem(uri)
    with readable(uri, "Parquet"), filesystem.open_input_file(path) as stream:
        return pq.read_schema(stream).names


def read(uri: str, columns: Sequence[str], options: SourceConfig) -> Iterator[pa.Table]:
    """Yield the rows of a file in order.

    Raises:
        DataError: the file is damaged, or no Parquet, or holds texts that are not UTF-8, or other rows than it says.
    """
    filesystem, path = open_filesystem(uri)
    with readable(uri, "Parquet"), filesystem.open_input_file(path) as stream:
        file, rows = pq.ParquetFile(stream), 0
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                _require_utf8(uri, name, column)
            rows += batch.num_rows
            yield pa.Table.from_batches([batch])
        if rows != file.metadata.num_rows:
            raise DataError(f"{uri}: its footer tells of {file.metadata.num_rows:,} rows, but {rows:,} are there")


def _require_utf8(uri: str, name: str, column: pa.Array) -> None:
    """Check the texts of a column, which Parquet does not.

    Raises:
        DataError: bytes are not UTF-8.
    """
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{uri}: column {name!r} holds bytes that are not UTF-8 ({error}). Write the file anew with texts that are "
            'decoded first (in Python: value.decode("latin-1"), or whatever the encoding is)'
        ) from error
