"""Guesses how a text file is read, from its beginning: format, encoding, separator, and whether it has a header line.

Knows the settings of a source, and nothing of what columns mean.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alphafuse.data.importers.csv import default_separator
from alphafuse.data.importers.damage import readable
from alphafuse.data.importers.huggingface import PREFIX
from alphafuse.data.importers.source import format_by_name
from alphafuse.data.importers.text_stream import UTF16_MARKS
from alphafuse.errors import DataError
from alphafuse.storage.filesystem.folder import open_filesystem

LOOKED_AT = 2**20
"""Bytes from the beginning of a file that are looked at."""
SEPARATORS = (",", "\t", ";", "|", "::")
_LINES = 50


@dataclass(frozen=True)
class Reading:
    """The way in which a file is read.

    Attributes:
        options: settings beside `path`, where they are not the defaults.
        reasons: why, by the name of the setting.
    """

    options: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def guess_reading(uri: str, columns: Sequence[str] | None) -> Reading:
    """Guess how one text file is read; one of another kind needs no settings.

    Args:
        columns: names of the columns of a file without a header line.

    Raises:
        DataError: the file cannot be read, or it has no header line and `columns` are not given.
    """
    known = format_by_name(uri)
    if uri.startswith(PREFIX) or known in ("parquet", "recbole"):
        return Reading()
    filesystem, path = open_filesystem(uri)
    if not filesystem.get_file_info(path).is_file:
        return Reading()
    with readable(uri, "text"), filesystem.open_input_stream(path) as stream:
        head = stream.read(LOOKED_AT)
    reading = Reading()
    encoding = _encoding(head)
    if encoding is not None:
        reading.options["encoding"] = encoding
        reading.reasons["encoding"] = "the file is not UTF-8"
    lines = [line for line in head.decode(encoding or "utf-8-sig", "replace").splitlines() if line.strip()]
    # The last line may be cut.
    lines = (lines[:-1] if len(head) == LOOKED_AT else lines)[:_LINES]
    if lines and lines[0].lstrip().startswith("{"):
        if known is None:
            reading.options["format"], reading.reasons["format"] = "jsonl", "its lines are JSON objects"
        return reading
    if known is None:
        reading.options["format"], reading.reasons["format"] = "csv", "it is text in lines"
    default = default_separator(uri)
    separator = _separator(lines, default)
    if separator != default:
        reading.options["separator"], reading.reasons["separator"] = separator, "it stands in each of the first lines"
    if columns is not None:
        reading.options["columns"], reading.reasons["columns"] = list(columns), "as given"
    elif lines and _is_data(_fields(lines[0], separator)):
        shown = ", ".join(map(repr, _fields(lines[0], separator)[:8]))
        raise DataError(
            f"{uri}: the first line holds values, and no names of columns: {shown}. Name the columns by "
            "--item-columns or --log-columns, as in user_id,item_id,rating,timestamp"
        )
    return reading


def _encoding(head: bytes) -> str | None:
    """Encoding of the beginning of a text; None: UTF-8."""
    if head.startswith(UTF16_MARKS):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # a character may be cut at the end
    except UnicodeDecodeError:
        pass
    else:
        return None
    try:
        head.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _separator(lines: Sequence[str], default: str) -> str:
    """The separator that gives all lines the same number of fields, and the most; the default where none does."""
    counts = {separator: {len(_fields(line, separator)) for line in lines} for separator in SEPARATORS}
    fitting = {separator: min(found) for separator, found in counts.items() if len(found) == 1 and min(found) > 1}
    if not fitting:
        # Of texts with line ends in quotes, the first line alone is whole.
        fitting = {separator: len(_fields(lines[0], separator)) for separator in SEPARATORS if lines}
    best = max(fitting.values(), default=1)
    return default if best == 1 or fitting.get(default) == best else max(fitting, key=lambda mark: fitting[mark])


def _fields(line: str, separator: str) -> list[str]:
    if len(separator) > 1:
        return line.split(separator)
    return next(csv.reader([line], delimiter=separator), [])


def _is_data(fields: Sequence[str]) -> bool:
    """Tell whether a first line holds values: names of columns are no numbers, and none is there twice."""
    return any(re.fullmatch(r"[-+]?\d+(\.\d+)?", value.strip()) for value in fields) or len(set(fields)) < len(fields)
