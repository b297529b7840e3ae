"""Reads CSV and TSV files, and others whose fields are separated by something, a block at a time.

Every value is read as a string, so that an id such as 007 keeps its zeros. An empty field is a missing value. Where
commas or semicolons separate the fields, quotes must close; in other files, such as TSV, quotes are characters like any
other, unless all of them close. As many rows come out as there are records in the file.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import pyarrow as pa
import pyarrow.csv as pacsv

from alphafuse.config import SourceConfig
from alphafuse.data.importers.damage import readable
from alphafuse.data.importers.records import RecordCounter, open_quote
from alphafuse.data.importers.text_faults import find_fault
from alphafuse.data.importers.text_stream import BLOCK_BYTES, as_stream, text_blocks
from alphafuse.errors import DataError

OPTIONS = frozenset({"separator", "encoding", "columns"})
"""Settings beside `path` that this format knows."""
_STRICT = (",", ";")
"""Separators of files whose quotes must close."""
HEAD_BYTES = 2**20
"""Bytes at the beginning of a large file from which its first rows are taken."""
_CUTS = 100
"""Number of line ends at which the beginning may end, since some lie inside of quotes."""
_STAND_IN = "\x1f"
"""Character that stands for a separator of several bytes: pyarrow separates by one byte."""


@dataclass(frozen=True)
class Dialect:
    """The form of a file whose fields are separated.

    Attributes:
        separator: what stands between two fields.
        is_quoted: a field may stand in quotes, which are no part of its value.
        columns: names of all columns; None: the first record has them.
        skipped: lines in front of the records.
        is_head: only the first records are read, from the first block of the file.
    """

    separator: str
    is_quoted: bool
    columns: Sequence[str] | None = None
    skipped: int = 0
    is_head: bool = False

    @property
    def delimiter(self) -> str:
        """The one byte that separates fields in what `blocks` yields."""
        return self.separator if self.separator.isascii() and len(self.separator) == 1 else _STAND_IN

    @property
    def quoting(self) -> Literal[0, 3]:
        """The quoting of Python's module csv."""
        return csv.QUOTE_MINIMAL if self.is_quoted else csv.QUOTE_NONE

    def blocks(self, uri: str, encoding: str | None) -> Iterator[bytes]:
        """Yield the text of a file, fields separated by `delimiter`.

        Raises:
            DataError: the file is no text, or holds the byte that stands for its separator.
        """
        blocks = text_blocks(uri, encoding)
        if self.delimiter != self.separator:
            blocks = _with_stand_in(uri, blocks, self.separator.encode())
        return _first_records(blocks, self.delimiter.encode(), self.is_quoted) if self.is_head else blocks


def column_names(uri: str, options: SourceConfig) -> list[str]:
    """Names of the columns of a file.

    Raises:
        DataError: the file is damaged, or no CSV.
    """
    if options.columns is not None:
        return list(options.columns)
    separator = _separator(uri, options)
    dialect = Dialect(separator, True)
    with readable(uri, "CSV"):
        blocks = dialect.blocks(uri, options.encoding)
        first, second = next(blocks, b""), next(blocks, None)
    header = next(filter(None, first.splitlines()), b"").decode(errors="replace")
    if separator not in _STRICT:
        dialect = Dialect(separator, open_quote([header.encode()], dialect.delimiter.encode()) is None)
    else:
        records = RecordCounter(dialect.delimiter.encode())
        wrong = records.add(first) or (records.end() if second is None else None)
        if wrong and separator not in header:
            return [header]  # its fields are separated by something else
        _require_closed(uri, wrong)
    text = io.StringIO(first.decode(errors="replace"), newline="")
    try:
        return next(filter(None, csv.reader(text, delimiter=dialect.delimiter, quoting=dialect.quoting)))
    except (StopIteration, csv.Error) as error:
        said = f" that can be read ({error})" if isinstance(error, csv.Error) else ""
        raise DataError(
            f"{uri} has no header line{said}. Write one, name the columns in `columns` beside `path`, or delete a file "
            "without rows"
        ) from error


def read(uri: str, columns: Sequence[str], options: SourceConfig) -> Iterator[pa.Table]:
    """Yield the rows of a file in order, all values as strings.

    Raises:
        DataError: the file is damaged, or no CSV.
    """
    return _read(uri, columns, options, is_head=False)


def head(uri: str, columns: Sequence[str], options: SourceConfig) -> Iterator[pa.Table]:
    """Yield the first rows of a file, as `read` does; what lies behind its first block is not read."""
    return _read(uri, columns, options, is_head=True)


def _read(uri: str, columns: Sequence[str], options: SourceConfig, is_head: bool) -> Iterator[pa.Table]:
    separator = _separator(uri, options)
    dialect = Dialect(separator, True, options.columns, is_head=is_head)
    if separator not in _STRICT:
        wrong = open_quote(dialect.blocks(uri, options.encoding), dialect.delimiter.encode())
        dialect = replace(dialect, is_quoted=wrong is None)
    yield from read_records(uri, columns, dialect, options.encoding, "CSV")


def read_records(
    uri: str, columns: Sequence[str], dialect: Dialect, encoding: str | None, kind: str
) -> Iterator[pa.Table]:
    """Yield some columns of a file as strings.

    Args:
        kind: what the file is said to be, for messages.

    Raises:
        DataError: the file is damaged, its quotes do not close, or a record got lost on the way.
    """
    records = RecordCounter(dialect.delimiter.encode(), dialect.is_quoted)
    rows = 0
    blocks = _checked(uri, dialect.blocks(uri, encoding), records)
    # A stream of pyarrow is read ahead by a thread, which may outlive a reader that is left early.
    stream = pa.BufferReader(b"".join(blocks)) if dialect.is_head else as_stream(blocks)
    with (
        readable(uri, kind),
        _explained(uri, encoding, dialect, columns),
        pacsv.open_csv(stream, _reading(dialect), _parsing(dialect), _as_strings(columns)) as reader,
    ):
        for batch in reader:
            rows += batch.num_rows
            yield pa.Table.from_batches([batch])
    has_header = dialect.columns is None or dialect.skipped > 0
    if rows != records.count - has_header:
        raise DataError(
            f"{uri}: {records.count - has_header:,} records were counted, but {rows:,} rows read. Are all "
            f"fields with line ends in quotes, and all quotes closed?"
        )


def missing_column_hint(uri: str, names: Sequence[str], options: SourceConfig) -> str:
    """Advice where a column is not among those that were found."""
    if names and names[0].startswith("sep="):
        return ". The first line is a note for Excel: delete it."
    other = next((mark for mark in (";", "\t", "::", "|", ",") if any(mark in name for name in names)), None)
    if other is not None and options.columns is None and other != _separator(uri, options):
        name, written, rename = (
            ("a tab", '"\\t"', " (or name the file .tsv)") if other == "\t" else (repr(other), f'"{other}"', "")
        )
        return (
            f". The header seems to be separated by {name}: set `separator: {written}` beside `path` of the catalog or "
            f"the log{rename}."
        )
    return ". Where the file has no header line, name its columns in `columns` beside `path`."


def _separator(uri: str, options: SourceConfig) -> str:
    return options.separator or default_separator(uri)


def default_separator(uri: str) -> str:
    """The separator of a file by its name."""
    return "\t" if re.search(r"\.tsv(\.\w+)?$", uri) else ","


def _reading(dialect: Dialect) -> pacsv.ReadOptions:
    names = None if dialect.columns is None else list(dialect.columns)
    return pacsv.ReadOptions(block_size=BLOCK_BYTES, column_names=names, skip_rows=dialect.skipped)


def _parsing(dialect: Dialect) -> pacsv.ParseOptions:
    quote: str | bool = '"' if dialect.is_quoted else False
    return pacsv.ParseOptions(delimiter=dialect.delimiter, quote_char=quote, newlines_in_values=dialect.is_quoted)


def _as_strings(columns: Sequence[str]) -> pacsv.ConvertOptions:
    """Options that read the chosen columns as strings, unchanged."""
    return pacsv.ConvertOptions(
        include_columns=list(columns),
        column_types={column: pa.string() for column in columns},
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )


def _first_records(blocks: Iterator[bytes], delimiter: bytes, is_quoted: bool) -> Iterator[bytes]:
    """Yield the first block alone, up to the end of a record near `HEAD_BYTES`."""
    first, second = next(blocks, b""), next(blocks, None)
    cut = first[:HEAD_BYTES]
    for _ in range(_CUTS if second is not None else 0):
        cut = cut[: cut.rfind(b"\n", 0, -1) + 1]
        if cut and (not is_quoted or open_quote([cut], delimiter) is None):
            first = cut
            break
    if first:
        yield first


def _checked(uri: str, blocks: Iterable[bytes], records: RecordCounter) -> Iterator[bytes]:
    """The blocks, which are counted while they pass.

    Raises:
        DataError: a quote does not close.
    """
    for block in blocks:
        _require_closed(uri, records.add(block))
        yield block
    _require_closed(uri, records.end())


@contextmanager
def _explained(uri: str, encoding: str | None, dialect: Dialect, wanted: Sequence[str] | None) -> Iterator[None]:
    """Context for pyarrow's reader, whose errors name no line: the file is read again to find it."""
    try:
        yield
    except pa.ArrowInvalid as error:
        open_blocks = partial(dialect.blocks, uri, encoding)
        fault = find_fault(open_blocks, dialect.delimiter, dialect.is_quoted, dialect.columns, wanted)
        if fault is None:
            raise
        raise DataError(f"{uri}, {fault}") from error


def _require_closed(uri: str, wrong: tuple[int, str] | None) -> None:
    if wrong is not None:
        line, reason = wrong
        raise DataError(
            f"{uri}, line {line}: a field begins with a quote, and {reason}. Close the quote, or write a quote that "
            'belongs to the text twice, in a field that is quoted ("say ""hi"""); else rows behind it would be lost'
        )


def _with_stand_in(uri: str, blocks: Iterable[bytes], separator: bytes) -> Iterator[bytes]:
    """The text with `_STAND_IN` in place of the separator. Whole lines pass, so that no separator is cut."""
    rest = b""
    for block in blocks:
        whole, end, rest = (rest + block).rpartition(b"\n")
        if _STAND_IN.encode() in whole:
            raise DataError(
                f"{uri}: holds the control character 0x1F, which stands for the separator {separator!r} here"
            )
        yield (whole + end).replace(separator, _STAND_IN.encode())
    yield rest.replace(separator, _STAND_IN.encode())
