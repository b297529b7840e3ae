"""Converts columns of any source to ids, times and texts.

Each conversion states what it accepts, and refuses the rest with an error that names the file, the column and the
remedy. Nothing here knows how files are read.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alphafuse.errors import DataError

TimeKind = Literal["numbers", "dates"]


def require_columns(where: str, available: Sequence[str], wanted: Iterable[str]) -> None:
    """Check that a source has the wanted columns.

    Raises:
        DataError: a column is missing, or stands there twice; the message names it, and of a missing one the most
            similar column and all columns.
    """
    for column in wanted:
        if available.count(column) > 1:
            raise DataError(
                f"{where} has the column {column!r} {available.count(column)} times: rename or remove all but one"
            )
        if column not in available:
            near = difflib.get_close_matches(column, available, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise DataError(f"{where} has no column {column!r}{hint} Its columns: {', '.join(available)}")


def as_ids(column: pa.ChunkedArray, where: str, name: str) -> pa.Array:
    """Ids as strings; a missing id (null, NaN or an empty string) is null.

    Strings stay as they are. Integers are written in decimals, and so are whole floats: readers turn a column of
    integers with missing values into floats.

    Raises:
        DataError: the column holds something else.
    """
    values = _plain(column)
    kind = values.type
    if pa.types.is_floating(kind):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values)
        _require_exact(values, where, name)
        try:
            values = values.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise DataError(f"{where}: column {name!r} holds ids that are not whole numbers: {error}") from error
    elif not (_is_string(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise DataError(f"{where}: column {name!r} must hold ids (strings or integers), found {kind}")
    values = values.cast(pa.string())
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


def as_times(column: pa.ChunkedArray, where: str, name: str) -> tuple[np.ndarray, TimeKind | None]:
    """Times as float64 [rows], NaN where missing; and their kind, numbers or dates (None: all are missing).

    Numbers stay as they are. Dates become microseconds since 1970. Strings hold either numbers or ISO 8601 dates.

    Raises:
        DataError: the column holds something else.
    """
    values = _plain(column)
    if values.null_count == len(values):
        return np.full(len(values), np.nan), None
    if _is_string(values.type):
        values = _parse_times(values.cast(pa.string()), where, name)
    kind: TimeKind = "numbers"
    if pa.types.is_date(values.type) or pa.types.is_timestamp(values.type):
        kind = "dates"
        zone = values.type.tz if pa.types.is_timestamp(values.type) else None
        values = values.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    elif not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise DataError(f"{where}: column {name!r} must hold timestamps (numbers or dates), found {values.type}")
    times = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(times), times, np.nan), kind


def as_text(column: pa.ChunkedArray, where: str, name: str) -> pa.Array:
    """Values as text, empty where missing (null or NaN); the values of a list that are there are joined by commas.

    Raises:
        DataError: the column holds nested records or bytes.
    """
    values = _plain(column)
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        try:
            values = _join_lists(values)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"{where}: column {name!r} cannot be used as text: it holds {kind}") from error
    elif pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise DataError(f"{where}: column {name!r} cannot be used as text: it holds {kind}")
    return _without_nan(values).cast(pa.string()).fill_null("")


def _require_exact(values: pa.Array, where: str, name: str) -> None:
    """Check that whole numbers in a column of floats are exact: beyond 2^(digits of the mantissa) neighbours merge.

    Raises:
        DataError: an id is not below that bound.
    """
    digits = {16: 11, 32: 24, 64: 53}[values.type.bit_width]
    largest = pc.max(pc.abs(values.cast(pa.float64()))).as_py()
    if largest is not None and largest > 2**digits:
        raise DataError(
            f"{where}: column {name!r} holds ids above 2^{digits} as {values.type}, such as {largest:.0f}, where ids "
            "that differ become one number. Write the column as integers or strings (pandas makes floats of integers "
            'beside a missing value: astype("Int64") keeps them)'
        )


def _without_nan(values: pa.Array) -> pa.Array:
    """The values with null in place of NaN."""
    if not pa.types.is_floating(values.type):
        return values
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def _join_lists(lists: pa.Array) -> pa.Array:
    """One text for each list, of its values that are not missing; empty for a list that is null."""
    texts = _without_nan(pc.list_flatten(lists)).cast(pa.string())
    there = pc.is_valid(texts).to_numpy(zero_copy_only=False)
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    counts = np.bincount(parents[there], minlength=len(lists))  # [lists]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), texts.filter(pa.array(there))), ", ")


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array, with dictionaries (categories) decoded."""
    values = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # a column without any chunk
        values = pa.array([], column.type)
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _parse_times(values: pa.Array, where: str, name: str) -> pa.Array:
    values = pc.utf8_trim_whitespace(values)
    values = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
    for kind in (pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return values.cast(kind)
        except pa.ArrowInvalid:
            continue
    raise DataError(
        f"{where}: column {name!r} must hold timestamps, numbers or ISO 8601 dates, all of one kind; "
        f"found the string {_first_that_is_no_number(values)!r}. Give another column as data.interactions.timestamp, "
        f"or null to keep the order of the rows"
    )


def _first_that_is_no_number(values: pa.Array) -> str:
    number = pc.match_substring_regex(values, r"^[-+]?[0-9.]+([eE][-+]?[0-9]+)?$")
    strange = values.filter(pc.invert(number))
    return (strange if len(strange) else values.drop_null())[0].as_py()
