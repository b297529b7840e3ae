"""Catalogs and logs in every format, damaged: what is read must be what an independent reader finds, or be refused.

The independent readers are Python's own csv and json, and pyarrow's `read_table` for Parquet, with the rules of
docs/data.md written down once more in plain Python.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from alphafuse.config import CatalogConfig, InteractionsConfig
from alphafuse.data.hashing import hash_ids
from alphafuse.data.importers.source import find_sources
from alphafuse.data.preparation.catalog import partition_catalog, sort_catalog_bucket
from alphafuse.data.preparation.interactions import group_users, partition_interactions
from alphafuse.data.preparation.scratch import read_columns
from alphafuse.errors import AlphafuseError
from alphafuse.storage.filesystem.folder import Folder
from benchmarks.fuzzing.damage import Change, applied, changes
from benchmarks.fuzzing.exploration import Outcome, Target, refusal

COLUMNS = {"items": ("item_id", "text"), "log": ("user_id", "item_id", "timestamp")}
KNOWN = [str(number) for number in range(40)]
"""Items of the catalog that logs are read against."""

csv.field_size_limit(2**30)

_characters = st.characters(codec="utf-8")
AWKWARD = ('"', '""', ",", "\t", ";", "\n", "\r\n", "'", "\x00", "\x1b[31m", "é", "e\u0301", "NaN", " ", "\ufeff", "漢")
_awkward = st.sampled_from(AWKWARD)
_texts = st.lists(st.one_of(_awkward, st.text(_characters, max_size=6)), max_size=4).map("".join)
ids = st.one_of(
    st.integers(0, 39).map(str),
    st.integers(-(2**63), 2**63 - 1).map(str),
    _texts,
    st.sampled_from(["007", "1.0", "1e3", "nan", ""]),
)
_times = st.one_of(st.integers(0, 2 * 10**9).map(str), st.sampled_from(["", "1e9", "2020-01-01", "x", "inf", "-1"]))


@dataclass(frozen=True)
class SourceFile:
    """A file of a catalog or log, and changes of it.

    Attributes:
        kind: `items` or `log`.
        rows: the values that were written, as texts.
        form: key of `WRITERS`.
    """

    kind: str
    rows: tuple[tuple[str, ...], ...]
    form: str
    damage: tuple[Change, ...]

    def content(self) -> bytes:
        """The bytes of the file."""
        return applied(list(self.damage), WRITERS[self.form](COLUMNS[self.kind], self.rows))


Writer = Callable[[Sequence[str], Sequence[Sequence[str]]], bytes]


def _delimited(delimiter: str, quoting: Any = csv.QUOTE_MINIMAL, end: str = "\n", mark: str = "") -> Writer:
    def write(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
        writer.writerows([columns, *rows])
        return (mark + text.getvalue()).encode()

    return write


def _parquet(convert: Callable[[str], Any] = str, kind: Any = None, **options: Any) -> Writer:
    """Write Parquet; the first column is converted and typed, and the others are texts."""

    def write(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
        values = [[row[number] for row in rows] for number in range(len(columns))]
        try:
            first = pa.array([convert(value) for value in values[0]], kind or pa.string())
        except (ValueError, OverflowError, pa.ArrowInvalid):
            first = pa.array(values[0], pa.string())
        sink = io.BytesIO()
        others = [pa.array(column, pa.string()) for column in values[1:]]
        pq.write_table(pa.table([first, *others], list(columns)), sink, **options)
        return sink.getvalue()

    return write


def _colons(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """Fields separated by `::`, without a header line and without quotes: values that need them lose what does."""
    lines = ["::".join(re.sub(r'[\r\n:"]|^$', "_", value) for value in row) for row in rows]
    return "\n".join([*lines, ""]).encode()


def _latin(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    return _delimited(",")(columns, rows).decode().encode("latin-1", "replace")


def _json_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """Objects, in which whole numbers of the first column are numbers and empty values are missing."""
    lines = []
    for first, *others in rows:
        value = int(first) if re.fullmatch(r"0|[1-9]\d{0,17}", first) else first
        pairs = zip(columns, [value, *others], strict=True)
        lines.append(json.dumps({column: value for column, value in pairs if value != ""}, ensure_ascii=False))
    return "\n".join([*lines, ""]).encode()


def _zipped(write: Writer) -> Writer:
    return lambda columns, rows: gzip.compress(write(columns, rows), mtime=0)


WRITERS: dict[str, Writer] = {
    "plain.csv": _delimited(","),
    "windows.csv": _delimited(",", csv.QUOTE_ALL, "\r\n", "\ufeff"),
    "zipped.csv.gz": _zipped(_delimited(",")),
    "plain.tsv": _delimited("\t"),
    "semicolons.txt": _delimited(";"),
    "colons.dat": _colons,
    "latin.csv": _latin,
    "lines.jsonl": _json_lines,
    "zipped.jsonl.gz": _zipped(_json_lines),
    "strings.parquet": _parquet(),
    "small.parquet": _parquet(compression="zstd", data_page_size=64, use_dictionary=False),
    "integers.parquet": _parquet(int, pa.int64()),
    "floats.parquet": _parquet(float, pa.float64()),
}
"""Writers of files, by their names."""
OPTIONS: dict[str, dict[str, Any]] = {
    "semicolons.txt": {"format": "csv", "separator": ";"},
    "colons.dat": {"format": "csv", "separator": "::"},
    "latin.csv": {"encoding": "latin-1"},
}
"""Settings beside `path` by the name of the file."""


def _cases(kind: str) -> st.SearchStrategy[SourceFile]:
    row = st.tuples(ids, _texts) if kind == "items" else st.tuples(ids, ids, _times)
    rows = st.lists(row, min_size=1, max_size=8).map(tuple)
    damage = st.lists(changes, max_size=2).map(tuple)
    return st.builds(SourceFile, st.just(kind), rows, st.sampled_from(sorted(WRITERS)), damage)


def _check(case: SourceFile, folder: Path) -> Outcome:
    path = folder / case.form
    path.write_bytes(case.content())
    try:
        found = _read_items(path) if case.kind == "items" else _read_log(path)
    except AlphafuseError as error:
        return refusal(error, case.form)
    rows = independent_rows(path, COLUMNS[case.kind])
    if rows is not None:
        wanted = expected_items(rows) if case.kind == "items" else expected_log(rows)
        assert found == wanted, f"read {found!r}\nthere is {wanted!r}"
    return "right"


TARGETS = [Target(f"data: {kind}", _cases(kind), _check) for kind in COLUMNS]


def _options(path: Path, kind: str) -> dict[str, Any]:
    columns = {"columns": COLUMNS[kind]} if path.suffix == ".dat" else {}
    return OPTIONS.get(path.name, {}) | columns


def _read_items(path: Path) -> tuple[int, dict[str, str]]:
    """Rows read, and the text of each item, as `prepare` reads a catalog."""
    config = CatalogConfig(path=path.name, **_options(path, "items"))
    (source,) = find_sources("data.catalog.path", config, str(path.parent))
    scratch = Folder(str(path.parent / "scratch"))
    read = partition_catalog(config, source, scratch, "source", 1)
    if read["counts"]["rows_read"] == read["counts"]["null_ids_dropped"]:
        return read["counts"]["rows_read"], {}  # which the stage refuses
    sort_catalog_bucket(scratch, read["runs"], 0, "bucket")
    table = read_columns(scratch, "bucket", ["item_id", "text"])
    texts = dict(zip(table["item_id"].to_pylist(), map(_squeezed, table["text"].to_pylist()), strict=True))
    return read["counts"]["rows_read"], texts


def _read_log(path: Path) -> tuple[int, dict[str, list[str]]]:
    """Rows read, and the known items of each user in the order of time, as `prepare` reads a log."""
    config = InteractionsConfig(path=path.name, **_options(path, "log"))
    (source,) = find_sources("data.interactions.path", config, str(path.parent))
    scratch = Folder(str(path.parent / "scratch"))
    hashes = hash_ids(pa.array(KNOWN))
    order = np.argsort(hashes)
    read = partition_interactions(config, source, hashes[order], scratch, "source", 1)
    if not read["runs"]:
        return read["counts"]["rows_read"], {}  # which the stage refuses
    group_users(scratch, read["runs"], 0, "bucket", 1)
    table = read_columns(scratch, "bucket", ["user_id", "items"])
    names = [[KNOWN[order[item]] for item in items] for items in table["items"].to_pylist()]
    return read["counts"]["rows_read"], dict(zip(table["user_id"].to_pylist(), names, strict=True))


def independent_rows(path: Path, columns: Sequence[str]) -> list[tuple[Any, ...]] | None:
    """The rows of a file by an independent reader; None where that reader does not know what they are."""
    content = path.read_bytes()
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(io.BytesIO(content)).select(list(columns))
            return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        text = content.decode("latin-1" if path.name == "latin.csv" else "utf-8-sig")
        if ".jsonl" in path.name:
            objects = [json.loads(line) for line in text.split("\n") if line.strip()]
            return [tuple(each.get(column) for column in columns) for each in objects]
        if path.suffix == ".dat":
            lines = [line.rstrip("\r").split("::") for line in text.split("\n") if line.strip("\r")]
            return [tuple(value or None for value in line) for line in lines]
        delimiter = {".tsv": "\t", ".txt": ";"}.get(path.suffix, ",")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header, *values = [line for line in reader if line]
    except (OSError, EOFError, ValueError, KeyError, AttributeError, csv.Error, zlib.error, pa.ArrowException):
        return None
    places = [header.index(column) for column in columns]
    return [tuple(line[place] or None for place in places) for line in values]


def expected_items(rows: list[tuple[Any, ...]]) -> tuple[int, dict[str, str]]:
    """The items of a catalog: the first row of each id counts, and rows without one are left out."""
    texts: dict[str, str] = {}
    for item_id, text in rows:
        if (name := name_of(item_id)) is not None:
            texts.setdefault(name, _squeezed("" if text is None else str(text)))
    return len(rows), texts


def expected_log(rows: list[tuple[Any, ...]]) -> tuple[int, dict[str, list[str]]]:
    """The known items of each user: each (user, item, time) once, in the order of time; a row without a time takes that
    of the row before it."""
    users: dict[str, list[tuple[float, str]]] = {}
    for user_id, item_id, time in rows:
        user, item = name_of(user_id), name_of(item_id)
        if user is None or item not in KNOWN:
            continue
        seconds = math.nan if time is None or not str(time).strip() else _seconds(str(time))
        log = users.setdefault(user, [])
        if (seconds, item) not in log or math.isnan(seconds):
            log.append((seconds, item))
    return len(rows), {user: _in_time(log) for user, log in users.items()}


def _seconds(time: str) -> float:
    """The time as a number that orders it; raises ValueError where it is none, since it should have been refused."""
    try:
        number = float(time)
        return number if math.isfinite(number) else math.nan
    except ValueError:
        return datetime.fromisoformat(time.strip()).replace(tzinfo=UTC).timestamp()


def _in_time(log: list[tuple[float, str]]) -> list[str]:
    known = [time for time, _ in log if not math.isnan(time)]
    latest = known[0] if known else 0.0
    filled = []
    for time, item in log:
        latest = latest if math.isnan(time) else time
        filled.append((latest, item))
    return [item for _, item in sorted(filled, key=lambda row: row[0])]


def name_of(value: Any) -> str | None:
    """An id as text; None where it is missing."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(int(value)) if isinstance(value, float) else str(value)


def _squeezed(text: str) -> str:
    """The text without its white space, of which kinds and runs are no difference."""
    return "".join(text.split())
