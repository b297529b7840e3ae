"""Reads RecBole atomic files: tab separated, the header names each column with its type, as in `movie_title:token_seq`.

A column goes by its name without the type, `movie_title`. Sequences (token_seq) stay as they are, with spaces.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.csv as pacsv

from alphafuse.data.importers.csv import as_strings
from alphafuse.data.importers.damage import readable
from alphafuse.errors import DataError
from alphafuse.storage.folder import open_filesystem

_BLOCK_BYTES = 8 * 2**20
_TYPES = ("token", "token_seq", "float", "float_seq")


def column_names(uri: str, split: str | None) -> list[str]:
    """Names of the columns of a file, without their types.

    Raises:
        DataError: the file is damaged, or its header is not that of an atomic file.
    """
    filesystem, path = open_filesystem(uri)
    with readable(uri, "a RecBole atomic file"), filesystem.open_input_stream(path) as stream:
        header = io.TextIOWrapper(stream, encoding="utf-8-sig").readline().rstrip("\r\n")
    fields = [field.rpartition(":") for field in header.split("\t")]
    for name, _, kind in fields:
        if not name or kind not in _TYPES:
            raise DataError(
                f"{uri} is no RecBole atomic file: its header must be name:type, separated by tabs, "
                f"with the types {', '.join(_TYPES)}; found {header[:200]!r}"
            )
    return [name for name, _, _ in fields]


def read(uri: str, columns: Sequence[str], split: str | None) -> Iterator[pa.Table]:
    """Yield the rows of a file in order, all values as strings.

    Raises:
        DataError: the file is damaged, or its header is not that of an atomic file.
    """
    names = column_names(uri, split)
    filesystem, path = open_filesystem(uri)
    reading = pacsv.ReadOptions(block_size=_BLOCK_BYTES, column_names=names, skip_rows=1)
    parsing = pacsv.ParseOptions(delimiter="\t", quote_char=False)
    with (
        readable(uri, "a RecBole atomic file"),
        filesystem.open_input_stream(path) as stream,
        pacsv.open_csv(stream, reading, parsing, as_strings(columns)) as reader,
    ):
        for batch in reader:
            yield pa.Table.from_batches([batch])
