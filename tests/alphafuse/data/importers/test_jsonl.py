"""JSON lines: values keep what they say, and a line that is none is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from alphafuse.config import SourceConfig
from alphafuse.data.importers.columns import as_ids, as_text
from alphafuse.data.importers.source import find_sources
from alphafuse.errors import DataError


def _read(path: Path, **options: Any) -> list[tuple[str | None, str | None]]:
    """Ids and texts of a file, as the catalog takes them."""
    rows: list[tuple[str | None, str | None]] = []
    for source in find_sources("data.catalog.path", SourceConfig(path=str(path), **options), "."):
        for table in source.read(["id", "text"]):
            ids, texts = as_ids(table["id"], source.uri, "id"), as_text(table["text"], source.uri, "text")
            rows += zip(ids.to_pylist(), texts.to_pylist(), strict=True)
    return rows


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([{"id": 7, "text": "a"}, {"id": "x", "text": 5}, {"id": None}], [("7", "a"), ("x", "5"), (None, "")]),
        ([{"id": 2**70, "text": "é"}, {"id": 1, "text": None}], [(str(2**70), "é"), ("1", "")]),
        ([{"id": 3.0, "text": 1.5}, {"id": 4, "text": 2}], [("3", "1.5"), ("4", "2")]),
        ([{"id": "1", "text": ["a", None, "b"]}, {"id": "2", "text": []}], [("1", "a, b"), ("2", "")]),
        ([{"id": float("nan"), "text": "a"}, {"id": 1, "text": "b"}], [(None, "a"), ("1", "b")]),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json.gz", "rows.ndjson"])
def test_values(tmp_path: Path, name: str, given: list[Any], expected: list[Any]) -> None:
    content = ("\ufeff" + "\r\n\n".join(map(json.dumps, given))).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert _read(tmp_path / name) == expected


def test_a_key_is_a_column_in_whatever_batch_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphafuse.data.importers.jsonl._BATCH_ROWS", 2)
    rows: list[dict[str, Any]] = [{"id": number} for number in range(5)]
    rows[4] = {"id": "five", "text": "late"}
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert _read(tmp_path / "rows.jsonl") == [("0", ""), ("1", ""), ("2", ""), ("3", ""), ("five", "late")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": 1, "text": "a"}\n{"id": 2, "te', "line 2 is no JSON object .*have one object a line"),
        (b'[{"id": 1},\n{"id": 2}]', "line 1 is no JSON object"),
        (b'[{"id": 1}, {"id": 2}]', r"line 1 is a JSON list and no object.*jq -c '\.\[\]'"),
        (b'{\n"id": 1\n}\n', "line 1 is no JSON object"),
        (b"{'id': 1, 'text': 'It\\'s'}", r"json\.dumps\(ast\.literal_eval\(line\)\)"),
        (b'{"id": 1, "text": "a"}\n{"id": true, "text": "b"}', "line 2: the column 'id' holds 'True', .* another kind"),
        (b'{"id": 1, "text": "a", "text": "b"}', "line 1: the object has the key 'text' twice"),
        (b'{"id": 1, "text": {"a": 1}}', "column 'text' cannot be used as text: .*such as .*'a': 1"),
        (b'{"id": 1, "text": "caf\xe9"}', "line 1: .*is not UTF-8"),
        (b'{"id": 1, "title": "a"}', r"no column 'text'.*id, title \(the keys of the first 10,000 lines\)"),
        (b'{"id": 1, "text": ' + b"[" * 100_000, "line 1 is no JSON object"),
    ],
)
def test_other_content_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        _read(tmp_path / "rows.jsonl")


def test_encodings(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes('{"id": 1, "text": "café"}'.encode("utf-16"))
    assert _read(tmp_path / "rows.jsonl", encoding="utf-16") == [("1", "café")]


def test_json_beside_files_of_another_format_describes_them(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,text\n1,a\n")
    (tmp_path / "about.json").write_text("{}")
    assert _read(tmp_path) == [("1", "a")]
    (tmp_path / "rows.csv").unlink()
    (tmp_path / "about.json").write_text('{"id": 1, "text": "b"}')
    assert _read(tmp_path) == [("1", "b")]
