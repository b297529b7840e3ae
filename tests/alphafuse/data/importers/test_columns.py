"""Conversion of ids, times and texts from every column type."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.data.importers.columns import as_ids, as_text, as_times, require_columns
from alphafuse.errors import DataError

UTC = datetime.UTC


def column(values: list[Any], kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (column(["007", "a b", "", None]), ["007", "a b", None, None]),
        (column(["x", None], pa.large_string()), ["x", None]),
        (column([7, None, -1]), ["7", None, "-1"]),
        (column([7, 2**64 - 1], pa.uint64()), ["7", "18446744073709551615"]),
        (column([7.0, float("nan"), None]), ["7", None, None]),
        (column(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (column([None, None]), [None, None]),
        (pa.chunked_array([], pa.string()), []),
        (pa.chunked_array([["a"], ["b"]]), ["a", "b"]),
        (column([Decimal(10**37), None], pa.decimal128(38, 0)), [str(10**37), None]),
        (column([Decimal("12.00")], pa.decimal128(10, 2)), ["12"]),
        (column([b"abc", b"", None]), ["abc", None, None]),
        (column([uuid.UUID(int=5).bytes, None], pa.uuid()), ["00000000-0000-0000-0000-000000000005", None]),
        (column([5, 6, 5]).dictionary_encode(), ["5", "6", "5"]),
    ],
)
def test_ids_become_strings(given: pa.ChunkedArray, expected: list[str | None]) -> None:
    assert as_ids(given, "file", "id").to_pylist() == expected


@pytest.mark.parametrize("values", [[1.5], [Decimal("1.5")], [True], [[1]], [{"a": 1}], [datetime.date(2020, 1, 1)]])
def test_other_ids_are_refused(values: list[Any]) -> None:
    with pytest.raises(DataError, match=r"file: column 'id' (must hold ids|holds ids that are not whole)"):
        as_ids(column(values), "file", "id")


@pytest.mark.parametrize("value", [b"\xe9\x80", b"\0" * 16])
def test_bytes_that_are_no_text_are_refused(value: bytes) -> None:
    for convert in (as_ids, as_text):
        with pytest.raises(DataError, match=r"file: column 'id' holds bytes that are .*such as .*value\.hex"):
            convert(column([value]), "file", "id")


@pytest.mark.parametrize(
    ("given", "expected", "kind"),
    [
        (column([3, None, 1]), [3, None, 1], "numbers"),
        (column([0.5, float("nan"), float("inf")]), [0.5, None, None], "numbers"),
        (column(["10", " 9 ", ""]), [10, 9, None], "numbers"),
        (column(["881250949.5", None]), [881250949.5, None], "numbers"),
        (column(["1970-01-02", "1970-01-01 00:00:01"]), [86_400e6, 1e6], "dates"),
        (column(["1970-01-01T01:00:00+01:00"]), [0], "dates"),
        (column([datetime.date(1970, 1, 3), None]), [2 * 86_400e6, None], "dates"),
        (column([datetime.datetime(1970, 1, 1, 0, 0, 2)]), [2e6], "dates"),
        (column([datetime.datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)], pa.timestamp("ns", "UTC")), [2e6], "dates"),
        (column([None, None], pa.string()), [None, None], None),
        (column(["1970-01-01 00:00:02 UTC", "1970-01-01T00:00:01.5 gmt"]), [2e6, 1.5e6], "dates"),
        (column(["1970-01-01T00:00:00.123456789Z", ""]), [123456, None], "dates"),
        (column(["1970-01-01T00:00:00.123456789", " 1970-01-01 "]), [123456, 0], "dates"),
        (column(["1970-01-01 02:00:00 +0200"]), [0], "dates"),
        (column(["9999-12-31", "0001-01-01"]), [253402214400e6, -62135596800e6], "dates"),
        (column([123456789, None], pa.timestamp("ns", "America/New_York")), [123456, None], "dates"),
        (column([Decimal("5.5")], pa.decimal128(10, 2)), [5.5], "numbers"),
        (column([5], pa.duration("s")), [5], "numbers"),
        (column([1569888000123456789, 1569888001123456789]), [1569888000123456789, 1569888001123456789], "numbers"),
    ],
)
def test_times(given: pa.ChunkedArray, expected: list[float | None], kind: str | None) -> None:
    times, found = as_times(given, "file", "time")
    assert found == kind
    np.testing.assert_array_equal(times, np.array([np.nan if value is None else value for value in expected], float))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["5", "yesterday"], "found the string 'yesterday'"),
        (["5", "2020-01-01"], "all of one kind; found the string '2020-01-01'"),
        ([True], "must hold timestamps .*found bool, such as 'True'"),
        (["10/01/2019"], "ISO 8601 dates .*found the string '10/01/2019'"),
        (
            [1569888000123456789, 1569888000123456790],
            "above 2.53 that times do not tell apart, such as .*6789 and .*6790",
        ),
        (["20191001123045123", "20191001123045124"], "integers above 2.53"),
        ([[1]], "must hold timestamps"),
    ],
)
def test_other_times_are_refused(values: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_times(column(values), "file", "time")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (column(["a", None]), ["a", ""]),
        (column([1995, None]), ["1995", ""]),
        (column(["é".encode(), None]), ["é", ""]),
        (column([["Drama", "War"], [], None]), ["Drama, War", "", ""]),
        (column(["a", "a"]).dictionary_encode(), ["a", "a"]),
    ],
)
def test_texts(given: pa.ChunkedArray, expected: list[str]) -> None:
    assert as_text(given, "file", "text").to_pylist() == expected


def test_dates_beyond_microseconds_are_refused() -> None:
    with pytest.raises(DataError, match="column 'time' holds dates that are too far from 1970"):
        as_times(column([2**62], pa.timestamp("ms")), "file", "time")


@pytest.mark.parametrize("values", [[{"a": 1}], [[{"a": 1}]], [[["nested"]]]])
def test_other_texts_are_refused(values: list[Any]) -> None:
    with pytest.raises(DataError, match="file: column 'text' cannot be used as text"):
        as_text(column(values), "file", "text")


@pytest.mark.parametrize(
    ("kind", "exact", "merged"), [(pa.float64(), 2**53, 2**53 + 2), (pa.float32(), 2**24, 2**24 + 2)]
)
def test_ids_that_floats_cannot_tell_apart_are_refused(kind: pa.DataType, exact: int, merged: int) -> None:
    assert as_ids(column([float(exact), None], kind), "log", "user").to_pylist() == [str(exact), None]
    with pytest.raises(DataError, match=f"log: column 'user' holds ids above 2.* such as {merged}"):
        as_ids(column([float(-merged) * -1, 1.0], kind), "log", "user")


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([["Toys", None, "Dolls"], None, [], [None]], None, ["Toys, Dolls", "", "", ""]),
        ([["a", "b"], None, ["c", None]], pa.list_(pa.string(), 2), ["a, b", "", "c"]),
        ([[1.5, float("nan")], [2.0]], None, ["1.5", "2"]),
        ([2001.0, float("nan"), None], None, ["2001", "", ""]),
    ],
)
def test_values_that_are_missing_leave_the_others(values: list[Any], kind: Any, expected: list[str]) -> None:
    assert as_text(column(values, kind), "items", "categories").to_pylist() == expected


def test_a_column_that_stands_twice_is_refused() -> None:
    require_columns("items.csv", ["title", "id", "title"], ["id"])
    with pytest.raises(DataError, match=r"items\.csv has the column 'title' 2 times"):
        require_columns("items.csv", ["title", "id", "title"], ["id", "title"])
