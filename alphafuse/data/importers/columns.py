"""Converts columns of any source to ids, times and texts.

Each conversion states what it accepts, and refuses the rest with an error that names the file, the column and the
remedy. Nothing here knows how files are read.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alphafuse.errors import DataError

TimeKind = Literal["numbers", "dates"]


def require_columns(where: str, available: Sequence[str], wanted: Iterable[str], advice: str = "") -> None:
    """Check that a source has the wanted columns.

    Args:
        advice: end of the message on a column that is missing.

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
            raise DataError(f"{where} has no column {column!r}{hint} Its columns: {', '.join(available)}{advice}")


def as_ids(column: pa.ChunkedArray, where: str, name: str) -> pa.Array:
    """Ids as strings; a missing id (null, NaN or an empty string) is null.

    Strings stay as they are. Integers are written in decimals, and so are whole floats and decimals: readers turn a
    column of integers with missing values into floats, and databases have no other large integers. Bytes that are
    UTF-8 are the string that they spell; UUIDs have the usual form with dashes.

    Raises:
        DataError: the column holds something else.
    """
    values = _plain(column)
    kind = values.type
    if pa.types.is_floating(kind):
        values = _without_nan(values)
        _require_exact(values, where, name)
        values = _whole_numbers(values, pa.int64(), where, name)
    elif pa.types.is_decimal(kind):
        values = _whole_numbers(values, pa.decimal256(76, 0), where, name)
    elif isinstance(kind, pa.UuidType):
        texts = [None if value is None else str(value) for value in values.to_pylist()]
        values = pa.array(texts, pa.string())
    elif _is_bytes(kind):
        values = _spelled(values, where, name)
    elif not (_is_string(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise DataError(
            f"{where}: column {name!r} must hold ids (strings or integers), found {kind}{_example(values)}. "
            f"Write it as strings or integers (in pandas: .astype(str))"
        )
    values = values.cast(pa.string())
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


def as_times(column: pa.ChunkedArray, where: str, name: str) -> tuple[np.ndarray, TimeKind | None]:
    """Times as float64 [rows], NaN where missing; and their kind, numbers or dates (None: all are missing).

    Numbers stay as they are. Dates become microseconds since 1970. Strings hold either numbers or ISO 8601 dates, whose
    zone may be written as UTC or GMT; digits behind the microseconds are cut off.

    Raises:
        DataError: the column holds something else, or integers that are equal as float64 and differ.
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
        values = _in_microseconds(values, zone, where, name)
    elif pa.types.is_duration(values.type):
        values = values.cast(pa.int64())
    elif not (
        pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type)
    ):
        raise DataError(
            f"{where}: column {name!r} must hold timestamps (numbers or dates), found "
            f"{values.type}{_example(values)}. Convert it, or give another column as data.interactions.timestamp"
        )
    times = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if pa.types.is_integer(values.type):
        _require_different(values, times, where, name)
    return np.where(np.isfinite(times), times, np.nan), kind


def as_text(column: pa.ChunkedArray, where: str, name: str) -> pa.Array:
    """Values as text, empty where missing (null or NaN); the values of a list that are there are joined by commas.

    Raises:
        DataError: the column holds nested records, or bytes that are not UTF-8.
    """
    values = _plain(column)
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        try:
            values = _join_lists(values)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"{where}: column {name!r} cannot be used as text: it holds {kind}{_example(values)}. Write it "
                f"as texts, or as lists of texts"
            ) from error
    elif _is_bytes(kind):
        values = _spelled(values, where, name)
    elif pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType):
        raise DataError(
            f"{where}: column {name!r} cannot be used as text: it holds {kind}{_example(values)}. Write the "
            f"part that counts as a column of its own"
        )
    return _without_nan(values).cast(pa.string()).fill_null("")


def _in_microseconds(values: pa.Array, zone: str | None, where: str, name: str) -> pa.Array:
    is_cut = pa.types.is_timestamp(values.type) and values.type.unit == "ns"
    try:
        return values.cast(pa.timestamp("us", zone), safe=not is_cut).cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{where}: column {name!r} holds dates that are too far from 1970: {error}. Correct or remove them"
        ) from error


def _whole_numbers(values: pa.Array, kind: pa.DataType, where: str, name: str) -> pa.Array:
    try:
        return values.cast(kind)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{where}: column {name!r} holds ids that are not whole numbers: {error}. Write them as strings"
        ) from error


def _spelled(values: pa.Array, where: str, name: str) -> pa.Array:
    """Bytes as the texts that they spell in UTF-8."""
    try:
        texts = values.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{where}: column {name!r} holds bytes that are not UTF-8{_example(values)}. Write them as texts "
            f"(in Python: value.hex(), or value.decode with the right encoding)"
        ) from error
    if pc.any(pc.match_substring(texts, "\0")).as_py():
        raise DataError(
            f"{where}: column {name!r} holds bytes that are no text{_example(values)}. Write them as texts (in Python: "
            "value.hex())"
        )
    return texts


def _require_different(values: pa.Array, times: np.ndarray, where: str, name: str) -> None:
    """Check that large integers that differ are still different as float64.

    Raises:
        DataError: two of them become equal.
    """
    if np.abs(times[np.isfinite(times)]).max(initial=0) <= 2**53:
        return
    whole = np.unique(values.drop_null().to_numpy(zero_copy_only=False))
    equal = np.flatnonzero(np.diff(whole.astype(np.float64)) == 0)
    if len(equal):
        one, other = whole[equal[0]], whole[equal[0] + 1]
        raise DataError(
            f"{where}: column {name!r} holds integers above 2^53 that times do not tell apart, such as {one} "
            f"and {other}. Divide them (nanoseconds by 1000), or write them as dates"
        )


def _example(values: pa.Array) -> str:
    """The first value that is there, for a message."""
    present = values.drop_null()
    return f", such as {str(present[0].as_py())[:60]!r}" if len(present) else ""


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


def _is_bytes(kind: pa.DataType) -> bool:
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _parse_times(values: pa.Array, where: str, name: str) -> pa.Array:
    values = pc.utf8_trim_whitespace(values)
    values = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
    for kind in (pa.int64(), pa.float64()):
        with suppress(pa.ArrowInvalid):
            return values.cast(kind)
    dates = pc.replace_substring_regex(values, r"(?i)\s*(UTC|GMT|Z)$", "Z")
    dates = pc.replace_substring_regex(dates, r"\s+([+-][0-9]{2}:?[0-9]{2})$", r"\1")
    dates = pc.replace_substring_regex(dates, r"([.]\d{6})\d+", r"\1")
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        with suppress(pa.ArrowInvalid):
            return dates.cast(kind)
    raise DataError(
        f"{where}: column {name!r} must hold timestamps, numbers or ISO 8601 dates (2019-10-01 12:30:00), all "
        f"of one kind; found the string {_first_that_is_no_number(values)!r}. Write them so (in pandas: "
        f"pd.to_datetime), give another column as data.interactions.timestamp, or null to keep the order of the rows"
    )


def _first_that_is_no_number(values: pa.Array) -> str:
    number = pc.match_substring_regex(values, r"^[-+]?[0-9.]+([eE][-+]?[0-9]+)?$")
    strange = values.filter(pc.invert(number))
    return (strange if len(strange) else values.drop_null())[0].as_py()
