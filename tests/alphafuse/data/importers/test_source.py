"""Every source gives the same rows, whatever its format and wherever it lies; damage is named."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alphafuse.data.importers.source import Source, find_sources
from alphafuse.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"item_id": "007", "text": 'a, "quoted" one', "unused": "x"},
    {"item_id": "b", "text": None, "unused": "y"},
    {"item_id": "c", "text": "Amélie — ünï", "unused": "z"},
]
WANTED = ["item_id", "text"]
EXPECTED = [{name: row[name] for name in WANTED} for row in ROWS]


def write(path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    """Write the rows in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows))
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return path
    tabs = path.suffix in (".tsv", ".item")
    names = [f"{name}:token" if path.suffix == ".item" else name for name in rows[0]]
    lines = [names]
    for row in rows:
        values = ["" if value is None else str(value) for value in row.values()]
        lines.append(values if tabs else ['"' + value.replace('"', '""') + '"' if value else "" for value in values])
    if path.suffix == ".tsv":
        lines = [[value.replace('"', "'") for value in line] for line in lines]
    path.write_text("\n".join(("\t" if tabs else ",").join(line) for line in lines) + "\n", encoding="utf-8")
    return path


def read(sources: Sequence[Source]) -> list[dict[str, Any]]:
    return [row for source in sources for table in source.read(WANTED) for row in table.to_pylist()]


def find(path: str, folder: str | Path = ".", **options: Any) -> list[Source]:
    return find_sources("data.catalog.path", path, str(folder), **options)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.item"])
def test_a_file_of_each_format(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    assert read(find(name, tmp_path)) == EXPECTED


@pytest.mark.parametrize("name", ["rows.csv", "rows.item"])
def test_ids_of_digits_keep_their_zeros(tmp_path: Path, name: str) -> None:
    rows = [{"item_id": "007", "text": "01"}, {"item_id": "0", "text": None}]
    write(tmp_path / name, rows)
    assert read(find(name, tmp_path)) == rows


def test_tabs_and_compression_go_by_the_name(tmp_path: Path) -> None:
    quoteless = [{**row, "text": row["text"] and row["text"].replace('"', "'")} for row in EXPECTED]
    write(tmp_path / "rows.tsv")
    assert read(find("rows.tsv", tmp_path)) == quoteless
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(write(tmp_path / "rows.csv").read_bytes()))
    assert read(find("rows.csv.gz", tmp_path)) == EXPECTED


def test_format_may_be_given(tmp_path: Path) -> None:
    write(tmp_path / "rows.csv").rename(tmp_path / "rows.dat")
    assert read(find("rows.dat", tmp_path, format="csv")) == EXPECTED
    with pytest.raises(DataError, match=r"data\.catalog\.path: cannot tell the format .*set `format` beside `path`"):
        find("rows.dat", tmp_path)


@pytest.mark.parametrize("path", ["parts", "parts/*.parquet", "parts/**", "parts/[01].parquet"])
def test_folders_and_globs_read_files_in_the_order_of_their_names(tmp_path: Path, path: str) -> None:
    write(tmp_path / "parts/1.parquet", ROWS[2:])
    write(tmp_path / "parts/0.parquet", ROWS[:2])
    write(tmp_path / "parts/_temporary/9.parquet")
    write(tmp_path / "parts/.hidden.parquet")
    if path != "parts/**":
        (tmp_path / "parts/README.md").write_text("not data")
    assert read(find(path, tmp_path)) == EXPECTED


def test_a_folder_of_several_formats_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "parts/0.parquet")
    write(tmp_path / "parts/1.csv")
    with pytest.raises(DataError, match=r"several formats \(csv, parquet\)"):
        find("parts", tmp_path)


@pytest.mark.parametrize("scheme", ["memory", "file"])
@pytest.mark.parametrize("path", ["parts/0.parquet", "parts", "parts/*.parquet"])
def test_remote_folders_are_read_as_local_ones(tmp_path: Path, scheme: str, path: str) -> None:
    write(tmp_path / "parts/0.parquet")
    folder = f"file://{tmp_path}"
    if scheme == "memory":
        folder = f"memory://bucket-{tmp_path.name}"
        fsspec.filesystem("memory").put(str(tmp_path / "parts"), f"{folder}/parts", recursive=True)
    assert read(find(path, folder)) == EXPECTED
    assert read(find(f"{folder}/{path}")) == EXPECTED


def test_hugging_face_data_sets(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(tmp_path / "several")
    write(tmp_path / "hub/data.parquet")
    assert read(find("one", tmp_path)) == EXPECTED
    assert read(find("several", tmp_path, split="test")) == EXPECTED[:1]
    assert read(find(f"hf://{tmp_path}/hub")) == EXPECTED
    with pytest.raises(DataError, match=r"several splits; set `split` .*: train, test"):
        find("several", tmp_path)
    with pytest.raises(DataError, match=r"no split 'dev'.*: train, test"):
        find("several", tmp_path, split="dev")
    with pytest.raises(DataError, match="without splits"):
        find("one", tmp_path, split="train")
    with pytest.raises(DataError, match="cannot be loaded as a Hugging Face data set"):
        find("nothing", tmp_path, format="huggingface")


def test_a_data_set_of_an_installed_package() -> None:
    sources = find("package://recbole/dataset_example/ml-100k/ml-100k.inter")
    table = pa.concat_tables(list(sources[0].read(["user_id", "item_id", "timestamp"])))
    assert table.num_rows == 100_000
    assert len(table["user_id"].unique()) == 943
    assert len(table["item_id"].unique()) == 1_682
    with pytest.raises(DataError, match="'nopackage' is not installed"):
        find("package://nopackage/file.csv")


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.item"])
def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name} has no column 'itemid'; did you mean 'item_id'\? Its columns: item"):
        list(find(name, tmp_path)[0].read(["itemid"]))


@pytest.mark.parametrize("keep", [0, 3, 100, -4])
def test_a_truncated_parquet_file_is_named(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "rows.parquet")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"rows\.parquet cannot be read as Parquet: .*Is the file complete"):
        read(find("rows.parquet", tmp_path))


def test_parquet_with_damaged_pages_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = [{"item_id": f"item {n}", "text": f"text {n}"} for n in range(5000)]
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[1000:9000] = b"\xff" * 8000
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"rows\.parquet cannot be read as Parquet"):
        read(find("rows.parquet", tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"", "cannot be read as CSV"),
        ("rows.csv", b"item_id,text\na,b\nc\n", "cannot be read as CSV: .*Expected 2 columns, got 1"),
        ("rows.csv", b"item_id,text\na,\xff\xfe\n", "cannot be read as CSV: .*UTF8"),
        ("rows.csv.gz", gzip.compress(b"item_id,text\n" + b"a,b\n" * 9000)[:60], "cannot be read as CSV"),
        ("rows.item", b"item_id,text\na,b\n", "is no RecBole atomic file: its header must be name:type"),
        ("rows.item", b"", "is no RecBole atomic file"),
        ("rows.item", b"item_id:token\ttext:token_seq\na\n", "cannot be read as a RecBole atomic file"),
        ("rows.item", b"item_id:token\ttext:token_seq\na\t\xff\n", "cannot be read as a RecBole atomic file"),
    ],
)
def test_damaged_text_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(find(name, tmp_path))


def test_identity_follows_the_content_not_the_place(tmp_path: Path) -> None:
    path = write(tmp_path / "here/rows.parquet")
    (tmp_path / "there").mkdir()
    shutil.copy(path, tmp_path / "there/rows.parquet")
    here, there = (find("rows.parquet", tmp_path / folder)[0].identity for folder in ("here", "there"))
    assert here == there
    write(path, ROWS[:2])
    assert find("rows.parquet", tmp_path / "here")[0].identity != there


def test_identity_of_a_large_file_is_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphafuse.data.importers.source.HASHED_BYTES", 10)
    path = write(tmp_path / "rows.csv")
    identity = find("rows.csv", tmp_path)[0].identity
    assert identity["bytes"] == path.stat().st_size
    assert "modified" in identity
    assert "sha256" not in identity


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    return [row for source in find_sources("data.catalog.path", str(path), ".") for table in source.read(columns)
            for row in table.to_pylist()]  # fmt: skip


@pytest.mark.parametrize("compressed", [False, True])
def test_a_quote_that_is_never_closed_loses_no_rows_in_silence(tmp_path: Path, compressed: bool) -> None:
    content = 'id,title\n1,a\n2,"b\n' + "".join(f"{number},c\n" for number in range(3, 99))
    path = tmp_path / ("items.csv.gz" if compressed else "items.csv")
    path.write_bytes(gzip.compress(content.encode()) if compressed else content.encode())
    with pytest.raises(DataError, match=r"items\.csv.*, line 3: a field begins with a quote, and it is never closed"):
        _read(path, ["id", "title"])
    corrected = content.replace('"b', "b")
    path.write_bytes(gzip.compress(corrected.encode()) if compressed else corrected.encode())
    assert len(_read(path, ["id", "title"])) == 98  # in the same process


def test_quotes_in_a_tsv_are_characters_unless_all_of_them_close(tmp_path: Path) -> None:
    loose = tmp_path / "loose.tsv"
    loose.write_text('id\ttitle\n1\t"Weird" Al\n2\t"b\n3\tc\n')
    assert [row["title"] for row in _read(loose, ["id", "title"])] == ['"Weird" Al', '"b', "c"]
    quoted = tmp_path / "quoted.tsv"
    quoted.write_text('id\ttitle\n1\t"two\nlines"\n2\t"say ""hi"""\n')
    assert [row["title"] for row in _read(quoted, ["id", "title"])] == ["two\nlines", 'say "hi"']


def test_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write(tmp_path / "log" / f"shard-{number}.csv", [{"item_id": f"i{number}"}])
    assert [row["item_id"] for row in _read(tmp_path / "log", ["item_id"])] == ["i1", "i2", "i10"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("_delta_log/00000000000000000000.json", "Delta Lake"),
        (".hoodie/hoodie.properties", "Hudi"),
        ("metadata/v1.metadata.json", "Iceberg"),
    ],
)
@pytest.mark.parametrize("path", ["log", "log/*.parquet"])
def test_tables_whose_log_says_which_files_count_are_refused(tmp_path: Path, name: str, kind: str, path: str) -> None:
    write(tmp_path / "log" / "part-0.parquet")
    (tmp_path / "log" / name).parent.mkdir()
    (tmp_path / "log" / name).write_text("{}")
    with pytest.raises(DataError, match=f"is a table of {kind} .* Export the table to a folder of plain Parquet files"):
        _read(tmp_path / path, WANTED)


def test_texts_that_are_not_utf8_are_named_with_their_column(tmp_path: Path) -> None:
    latin = pa.array([b"caf\xe9", b"tea"]).view(pa.binary()).cast(pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 2, latin.buffers())
    pq.write_table(pa.table({"item_id": ["1", "2"], "text": texts}), tmp_path / "items.parquet")
    assert [row["item_id"] for row in _read(tmp_path / "items.parquet", ["item_id"])] == ["1", "2"]
    with pytest.raises(DataError, match=r"items\.parquet: column 'text' holds bytes that are not UTF-8"):
        _read(tmp_path / "items.parquet", WANTED)


def test_a_column_that_stands_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    names = ["item_id", "text", "text"]
    twice = pa.Table.from_arrays([pa.array(["1"])] * 3, names=names)
    pq.write_table(twice, tmp_path / "items.parquet")
    (tmp_path / "items.csv").write_text("item_id,text,text\n1,a,b\n")
    for file in ("items.parquet", "items.csv"):
        with pytest.raises(DataError, match=f"{file} has the column 'text' 2 times"):
            _read(tmp_path / file, WANTED)


def test_a_data_set_whose_files_differ_is_refused_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path / "set" / "a.parquet")
    write(tmp_path / "set" / "b.parquet", [{"item_id": "1", "other": 2}])
    with pytest.raises(DataError, match=r"(?s)cannot be loaded as a Hugging Face data set: .*name its Parquet or CSV"):
        find_sources("data.catalog.path", f"hf://{tmp_path}/set", ".")
