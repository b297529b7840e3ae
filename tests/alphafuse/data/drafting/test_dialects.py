"""Guesses of format, encoding and separator from the beginning of a file."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from alphafuse.data.drafting.dialects import guess_reading
from alphafuse.errors import DataError


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", b"id,title\n1,A\n", {}),
        ("a.csv", b'id,title\n1,"A; B; C"\n', {}),
        ("a.csv", b'"id";"title"\n"1";"A, B"\n', {"separator": ";"}),
        ("a.csv", b"id\ttitle\n1\tA\n", {"separator": "\t"}),
        ("a.tsv", b"id\ttitle\n1\tA, B\n", {}),
        ("a.csv", b"id|title\n1|A\n", {"separator": "|"}),
        ("a.csv", "id,title\n1,Am\u00e9lie\n".encode(), {}),
        ("a.csv", "id,title\n1,Am\u00e9lie\n".encode("latin-1"), {"encoding": "cp1252"}),
        ("a.csv", b"id,title\n1,\x81\xe9\n", {"encoding": "latin-1"}),
        ("a.csv", "id,title\n1,A\n".encode("utf-16"), {"encoding": "utf-16"}),
        ("a.csv", b'id,title\n1,"two\nlines, and a comma"\n', {}),
        ("a.csv", b"", {}),
        ("a.jsonl", b'{"id": 1}\n', {}),
        ("a.txt", b'{"id": 1}\n', {"format": "jsonl"}),
        ("a.txt", b"id,title\n1,A\n", {"format": "csv"}),
        ("a.parquet", b"PAR1", {}),
    ],
)
def test_options_that_are_not_the_defaults(tmp_path: Path, name: str, content: bytes, options: dict[str, Any]) -> None:
    (tmp_path / name).write_bytes(content)
    reading = guess_reading(str(tmp_path / name), None)
    assert reading.options == options
    assert reading.reasons.keys() == options.keys()


def test_packed_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"id;title\n1;A\n", mtime=0))
    assert guess_reading(str(tmp_path / "a.csv.gz"), None).options == {"separator": ";"}


def test_a_character_cut_by_the_end_of_what_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphafuse.data.drafting.dialects.LOOKED_AT", 15)
    (tmp_path / "a.csv").write_bytes("id,title\n1,Am\u00e9lie\n".encode())
    assert guess_reading(str(tmp_path / "a.csv"), None).options == {}


@pytest.mark.parametrize("content", [b"1::Heat::Crime\n2::Alien::Horror\n", b"a::a::b\n"])
def test_columns_of_files_without_a_header_are_asked_for(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "movies.dat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"no names of columns: .*--item-columns or --log-columns"):
        guess_reading(str(path), None)
    names = ["id", "title", "genres"]
    assert guess_reading(str(path), names).options == {"format": "csv", "separator": "::", "columns": names}
