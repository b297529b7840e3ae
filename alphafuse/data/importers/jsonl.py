"""Reads JSON lines: one object a line, whose keys are the columns. A key that a line lacks is a missing value.

Whole numbers stay exact however long they are. A column may hold texts in some lines and whole numbers in others: both
become texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from alphafuse.config import SourceConfig
from alphafuse.data.importers.damage import readable
from alphafuse.data.importers.text_faults import describe_undecodable
from alphafuse.data.importers.text_stream import lines, text_blocks
from alphafuse.errors import DataError

OPTIONS = frozenset({"encoding"})
"""Settings beside `path` that this format knows."""
HEAD_LINES = 10_000
"""Lines at the beginning of a file whose keys are its columns."""
_BATCH_ROWS = 8192
_ADVICE = (
    "JSON lines have one object a line: in pandas, to_json(path, orient='records', lines=True); with jq, "
    "jq -c '.[]' FILE > FILE.jsonl"
)
_PYTHON = (
    "The line is written as Python does, as in old data of Amazon: write json.dumps(ast.literal_eval(line)) "
    "for each line"
)


class _Repeated(dict[str, Any]):
    """An object in which a key stands twice."""

    keys_twice: frozenset[str]


def column_names(uri: str, options: SourceConfig) -> list[str]:
    """Keys of the first `HEAD_LINES` objects.

    Raises:
        DataError: the file is damaged, or no JSON lines.
    """
    return list(dict.fromkeys(key for _, row in islice(_objects(uri, options), HEAD_LINES) for key in row))


def read(uri: str, columns: Sequence[str], options: SourceConfig) -> Iterator[pa.Table]:
    """Yield the rows of a file in order.

    Raises:
        DataError: the file is damaged, or no JSON lines, or values of a column are of different kinds.
    """
    rows = _objects(uri, options)
    while batch := list(islice(rows, _BATCH_ROWS)):
        for number, row in batch:
            if isinstance(row, _Repeated) and (twice := row.keys_twice & set(columns)):
                raise DataError(f"{uri}, line {number}: the object has the key {min(twice)!r} twice")
        yield pa.table({name: _column(uri, name, batch) for name in columns})


def missing_column_hint(uri: str, names: Sequence[str], options: SourceConfig) -> str:
    """Advice where a column is not among those that were found."""
    return f" (the keys of the first {HEAD_LINES:,} lines)"


def _objects(uri: str, options: SourceConfig) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with their lines."""
    with readable(uri, "JSON lines"):
        for number, line in enumerate(lines(text_blocks(uri, options.encoding)), start=1):
            if line.strip():
                yield number, _parse(uri, number, line)


def _parse(uri: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode(), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise DataError(f"{uri}, line {number}: {describe_undecodable(line[max(0, error.start - 20) :])}") from error
    except (ValueError, RecursionError) as error:
        beginning = line[:100].decode(errors="replace")
        advice = _PYTHON if beginning.startswith("{'") else _ADVICE
        raise DataError(f"{uri}, line {number} is no JSON object ({error}): {beginning!r}. {advice}") from error
    if not isinstance(row, dict):
        raise DataError(f"{uri}, line {number} is a JSON {type(row).__name__} and no object. {_ADVICE}")
    return row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    repeated = _Repeated(row)
    keys = [key for key, _ in pairs]
    repeated.keys_twice = frozenset(key for key in row if keys.count(key) > 1)
    return repeated


def _column(uri: str, name: str, batch: Sequence[tuple[int, dict[str, Any]]]) -> pa.Array:
    """Values of a key, as an array of the type that they have in common."""
    values = [row.get(name) for _, row in batch]
    kinds = {type(value) for value in values} - {type(None)}
    is_whole = kinds <= {int}
    if kinds == {int, str} or (
        is_whole and any(value is not None and not -(2**63) <= value < 2**63 for value in values)
    ):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    try:
        if kinds == {int, float}:
            return pa.array(values, pa.float64())
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        first = next(kind for kind in map(type, values) if kind is not type(None))
        place = next((place for place, value in enumerate(values) if type(value) not in (first, type(None))), 0)
        raise DataError(
            f"{uri}, line {batch[place][0]}: the column {name!r} holds {str(values[place])[:100]!r}, which is "
            f"of another kind than the values before it ({error})"
        ) from error
