"""Reads CSV and TSV files with a header line, a block at a time.

Every value is read as a string, so that an id such as 007 keeps its zeros. An empty field is a missing value. A CSV
whose quotes do not close is refused; in a TSV quotes are characters like any other, unless all of them close.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.csv as pacsv

from alphafuse.data.importers.damage import readable
from alphafuse.data.importers.quotes import open_quote
from alphafuse.errors import DataError
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
    """Delimiter and quotes of a file.

    Raises:
        DataError: quotes of a CSV do not close.
    """
    if re.search(r"\.tsv(\.\w+)?$", uri):
        is_quoted = _open_quote(uri, b"\t") is None
        return pacsv.ParseOptions(delimiter="\t", quote_char='"' if is_quoted else False, newlines_in_values=is_quoted)
    if wrong := _open_quote(uri, b","):
        line, reason = wrong
        raise DataError(
            f"{uri}, line {line}: a field begins with a quote, and {reason}. Close the quote, or write a quote that "
            'belongs to the text twice, in a field that is quoted ("say ""hi"""); else rows behind it would be lost'
        )
    return pacsv.ParseOptions(delimiter=",", newlines_in_values=True)


def _open_quote(uri: str, delimiter: bytes) -> tuple[int, str] | None:
    """Line and reason of the first quote that does not close."""
    filesystem, path = open_filesystem(uri)
    info = filesystem.get_file_info(path)
    return _scan_quotes(uri, delimiter, info.size, info.mtime_ns)


@functools.lru_cache(maxsize=256)
def _scan_quotes(uri: str, delimiter: bytes, size: int | None, mtime_ns: int | None) -> tuple[int, str] | None:
    """Read a file for its quotes, once for its columns and its rows; size and time tell a file that was corrected."""
    filesystem, path = open_filesystem(uri)
    with filesystem.open_input_stream(path) as stream:
        return open_quote(iter(lambda: stream.read(_BLOCK_BYTES), b""), delimiter)
