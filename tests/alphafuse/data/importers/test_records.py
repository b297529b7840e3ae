"""Quotes that do not close are found, wherever blocks are cut; well-formed files pass."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphafuse.data.importers.records import RecordCounter, open_quote

TEXTS = st.text(alphabet='ab",\n\r \t', max_size=8)


def _found(content: str, size: int = 1 << 20, delimiter: bytes = b",") -> tuple[int, str] | None:
    data = content.encode()
    return open_quote((data[start : start + size] for start in range(0, len(data), size)), delimiter)


@given(st.lists(st.lists(TEXTS, min_size=2, max_size=2), max_size=5), st.sampled_from([0, 1]), st.integers(1, 9))
def test_whatever_csv_writes_is_well_quoted(rows: list[list[str]], quoting: int, size: int) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    assert _found(stream.getvalue(), size) is None


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ('id,title\n1,a\n2,"b\n3,c\n', 3, "never closed"),
        ('id,title\n1,"a\n2,b\n3,"c"\n', 2, "followed by more text"),  # the quote of line 4 closes that of line 2
        ('id,title\n1,"two\nlines"\n2,"b ""x\n', 4, "never closed"),
        ('"', 1, "never closed"),
        ('\ufeff"id,title\n1,a\n', 1, "never closed"),
        ('id,title\n1,"Weird" Al\n', 2, "followed by more text"),
    ],
)
def test_a_quote_that_does_not_close_is_found_with_its_line(content: str, line: int, reason: str, size: int) -> None:
    found = _found(content, size)
    assert found is not None
    assert found[0] == line
    assert reason in found[1]


@pytest.mark.parametrize("content", ['id,title\n1,12" vinyl\n2,b\n', '1,""\n2,""""\n', '\ufeff"id","title"\r\n"1","a"'])
def test_quotes_that_open_nothing_are_characters(content: str) -> None:
    assert _found(content) is None


@given(st.lists(st.lists(TEXTS, min_size=2, max_size=2), max_size=5), st.sampled_from([0, 1]), st.integers(1, 9))
def test_records_are_counted_as_csv_reads_them(rows: list[list[str]], quoting: int, size: int) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    data = stream.getvalue().encode()
    records = RecordCounter(b",")
    assert not any(records.add(data[start : start + size]) for start in range(0, len(data), size))
    assert records.end() is None
    assert records.count == len(rows)


FIELD = r'"(?:[^"]|"")*"|[^",\r\n][^,\r\n]*|'


@settings(max_examples=300)
@given(st.text(alphabet='a",\n\r', max_size=30), st.integers(1, 9))
def test_the_verdict_is_that_of_a_grammar(content: str, size: int) -> None:
    assert (_found(content, size) is None) == bool(re.fullmatch(rf"(?:(?:{FIELD})[,\r\n])*", content + "\n"))
