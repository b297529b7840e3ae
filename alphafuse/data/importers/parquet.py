"""Reads Parquet files, a few thousand rows at a time and only the columns that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from alphafuse.data.importers.damage import readable
from alphafuse.errors import DataError
from alphafuse.storage.folder import open_filesystem

_BATCH_ROWS = 8192  # small enough for rows with a vector


def column_names(uri: str, split: str | None) -> list[str]:
    """Names of the columns of a file.

    Raises:
        DataError: the file is damaged, or no Parquet.
    """
    filesystem, path = open_filesystem(uri)
    with readable(uri, "Parquet"), filesystem.open_input_file(path) as stream:
        return pq.read_schema(stream).names


def read(uri: str, columns: Sequence[str], split: str | None) -> Iterator[pa.Table]:
    """Yield the rows of a file in order.

    Raises:
        DataError: the file is damaged, or no Parquet, or holds texts that are not UTF-8.
    """
    filesystem, path = open_filesystem(uri)
    with readable(uri, "Parquet"), filesystem.open_input_file(path) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(_BATCH_ROWS, columns=list(columns)):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                _require_utf8(uri, name, column)
            yield pa.Table.from_batches([batch])


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
