"""Reads RecBole atomic files: tab separated, the header names each column with its type, as in `movie_title:token_seq`.

A column goes by its name without the type, `movie_title`. Sequences (token_seq) stay as they are, with spaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from alphafuse.config import SourceConfig
from alphafuse.data.importers.csv import Dialect, read_records
from alphafuse.data.importers.damage import readable
from alphafuse.data.importers.text_stream import lines, text_blocks
from alphafuse.errors import DataError

OPTIONS = frozenset({"encoding"})
"""Settings beside `path` that this format knows."""
_TYPES = ("token", "token_seq", "float", "float_seq")


def column_names(uri: str, options: SourceConfig) -> list[str]:
    """Names of the columns of a file, without their types.

    Raises:
        DataError: the file is damaged, or its header is not that of an atomic file.
    """
    with readable(uri, "a RecBole atomic file"):
        header = next(lines(text_blocks(uri, options.encoding)), b"").decode().rstrip("\r")
    fields = [field.rpartition(":") for field in header.split("\t")]
    for name, _, kind in fields:
        if not name or kind not in _TYPES:
            raise DataError(
                f"{uri} is no RecBole atomic file: its header must be name:type, separated by tabs, "
                f"with the types {', '.join(_TYPES)}; found {header[:200]!r}"
            )
    return [name for name, _, _ in fields]


def read(uri: str, columns: Sequence[str], options: SourceConfig) -> Iterator[pa.Table]:
    """Yield the rows of a file in order, all values as strings.

    Raises:
        DataError: the file is damaged, or its header is not that of an atomic file.
    """
    return _read(uri, columns, options, is_head=False)


def head(uri: str, columns: Sequence[str], options: SourceConfig) -> Iterator[pa.Table]:
    """Yield the first rows of a file, as `read` does; what lies behind its first block is not read."""
    return _read(uri, columns, options, is_head=True)


def _read(uri: str, columns: Sequence[str], options: SourceConfig, is_head: bool) -> Iterator[pa.Table]:
    dialect = Dialect("\t", is_quoted=False, columns=column_names(uri, options), skipped=1, is_head=is_head)
    yield from read_records(uri, columns, dialect, options.encoding, "a RecBole atomic file")
