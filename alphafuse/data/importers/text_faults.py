"""Finds the line at which the text of a table cannot be read, after a reader has failed without saying where.

Slow and simple: it only runs when there is something to explain.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence

from alphafuse.data.importers.text_stream import BLOCK_BYTES, lines


def find_fault(
    blocks: Callable[[], Iterable[bytes]],
    delimiter: str,
    is_quoted: bool,
    columns: Sequence[str] | None,
    wanted: Sequence[str] | None,
) -> str | None:
    """Describe the first thing that is wrong with a text, and what to do; None where it seems to be right.

    Args:
        blocks: opens the text.
        delimiter: one character that separates fields.
        columns: names of all columns; None: the first record has them.
        wanted: names of the columns that are read; None: all.
    """
    return (
        _empty(blocks())
        or _undecodable(blocks(), delimiter, columns, wanted)
        or _too_long(blocks())
        or _wrong_width(blocks(), delimiter, is_quoted, columns)
    )


def describe_undecodable(value: bytes) -> str:
    """Say that bytes are not UTF-8, and which encoding they may be of."""
    return (
        f"{value[:60]!r} is not UTF-8. Set `encoding` beside `path` of the catalog or the log, for example "
        f"`encoding: cp1252`, with which it reads {value[:60].decode('cp1252', 'replace')!r}; or write the file "
        f"as UTF-8"
    )


def _empty(blocks: Iterable[bytes]) -> str | None:
    if any(line.strip() for line in lines(blocks)):
        return None
    return "line 1: no line holds anything; delete the file if it has no rows, or write its header line"


def _undecodable(
    blocks: Iterable[bytes], delimiter: str, columns: Sequence[str] | None, wanted: Sequence[str] | None
) -> str | None:
    for number, line in enumerate(lines(blocks), start=1):
        fields = None if line.isascii() and columns is not None else line.split(delimiter.encode())
        if columns is None and fields is not None and line.strip():
            columns = [field.decode("utf-8", "replace").strip('"\r') for field in fields]
        for place, field in enumerate(fields or ()):
            name = columns[place] if columns is not None and place < len(columns) else f"number {place + 1}"
            if (wanted is None or name in wanted) and not _is_utf8(field):
                return f"line {number}, column {name!r}: {describe_undecodable(field)}"
    return None


def _too_long(blocks: Iterable[bytes]) -> str | None:
    for number, line in enumerate(lines(blocks), start=1):
        if len(line) >= BLOCK_BYTES:
            return (
                f"line {number} has {len(line):,} bytes, and may have {BLOCK_BYTES:,}. Is a line end missing? "
                f"Parquet knows no such limit"
            )
    return None


def _wrong_width(blocks: Iterable[bytes], delimiter: str, is_quoted: bool, columns: Sequence[str] | None) -> str | None:
    texts = (line.decode("utf-8", "replace") + "\n" for line in lines(blocks))
    reader = csv.reader(texts, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE)
    names = columns
    try:
        for fields in filter(None, reader):
            if names is None:
                names = fields
            elif len(fields) != len(names):
                return (
                    f"line {reader.line_num} has {len(fields)} fields, but there are {len(names)} columns: "
                    f"{str(fields[:20])[:200]}. A field that holds the separator must stand in quotes"
                )
    except csv.Error:  # a field that Python's reader does not take: it finds nothing
        pass
    return None


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
