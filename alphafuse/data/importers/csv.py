"""Reads CSV and TSV files with a header line, a block at a time.

Every value is read as a string, so that an id such as 007 keeps its zeros. An empty field is a missing value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.csv as pacsv

from alphafuse.data.importers.damage import readable
from alphafuse.storage.folder import open_filesystem

_BLOCK_BYTES = 8 * 2**20  # also the longest row


def column_names(uri: str, split: str | None) -> list[str]:
    """Names of the columns of a file.

    Raises:
        DataError: the file is damaged, or no CSV.
    """
    filesystem, path = open_filesystem(uri)
    with (
        readable(uri, "CSV"),
        filesystem.open_input_stream(path) as stream,
        pacsv.open_csv(stream, _read_options(), _parse_options(uri)) as reader,
    ):
        return reader.schema.names


def read(uri: str, columns: Sequence[str], split: str | None) -> Iterator[pa.Table]:
    """Yield the rows of a file in order, all values as strings.

    Raises:
        DataError: the file is damaged, or no CSV.
    """
    filesystem, path = open_filesystem(uri)
    with (
        readable(uri, "CSV"),
        filesystem.open_input_stream(path) as stream,
        pacsv.open_csv(stream, _read_options(), _parse_options(uri), as_strings(columns)) as reader,
    ):
        for batch in reader:
            yield pa.Table.from_batches([batch])


def as_strings(columns: Sequence[str]) -> pacsv.ConvertOptions:
    """Options that read the chosen columns as strings, unchanged."""
    return pacsv.ConvertOptions(
        include_columns=list(columns),
        column_types={column: pa.string() for column in columns},
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )


def _read_options() -> pacsv.ReadOptions:
    return pacsv.ReadOptions(block_size=_BLOCK_BYTES)


def _parse_options(uri: str) -> pacsv.ParseOptions:
    tabs = re.search(r"\.tsv(\.\w+)?$", uri) is not None
    return pacsv.ParseOptions(delimiter="\t" if tabs else ",", newlines_in_values=True)
