"""Every source gives the same rows, whatever its format and wherever it lies; damage is named."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alphafuse.config import SourceConfig
from alphafuse.data.importers.source import Source, find_all_files, find_sources, identified
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
    return find_sources("data.catalog.path", SourceConfig(path=path, **options), str(folder))


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


@pytest.mark.parametrize("keep", [3, 100, -4])
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
        ("rows.csv", b"", "has 0 bytes: delete it if it holds no rows, or copy it again"),
        ("rows.csv.gz", gzip.compress(b"\n\n", mtime=0), r"rows\.csv\.gz has no header line\. Write one"),
        (
            "rows.csv",
            b"item_id,text\na,b\nc\n",
            r"line 3 has 1 fields, but there are 2 columns: .*must stand in quotes",
        ),
        (
            "rows.csv",
            b"item_id,text\na,\xff\xfe\n",
            r"line 2, column 'text': .* is not UTF-8\. Set `encoding` .*reads 'ÿþ'",
        ),
        ("rows.csv", b"item_id,text\na,b\0\n", "holds a NUL byte .at byte 16., which no text has"),
        ("rows.csv", "item_id,text\na,b\n".encode("utf-16"), "is text in UTF-16: set `encoding: utf-16`"),
        ("rows.csv", "item_id,text\na,b\n".encode("utf-16-le"), "holds a NUL byte .* or in UTF-16"),
        ("rows.csv", gzip.compress(b"item_id,text\n", mtime=0), "is packed by gzip: let its name end in .gz"),
        ("rows.csv", b"PK\x03\x04", "is a ZIP archive"),
        ("rows.csv", b"PAR1", "is a Parquet file"),
        ("rows.csv", b"sep=;\nitem_id;text\n", "The first line is a note for Excel: delete it"),
        ("rows.csv", b"item_id;text\n", r"no column .*separated by ';': set `separator: \";\"`"),
        ("rows.csv", b"item_id\ttext\n", r"no column .*separated by a tab: .*\(or name the file \.tsv"),
        ("rows.csv", b"a,b\nc,d\n", "Where the file has no header line, name its columns in `columns`"),
        ("rows.csv.gz", gzip.compress(b"item_id,text\n" + b"a,b\n" * 9000, mtime=0)[:60], "cannot be read as CSV"),
        ("rows.item", b"item_id,text\na,b\n", "is no RecBole atomic file: its header must be name:type"),
        ("rows.item", b"\n", "is no RecBole atomic file"),
        ("rows.item", b"item_id:token\ttext:token_seq\na\n", "line 2 has 1 fields, but there are 2 columns"),
        ("rows.item", b"item_id:token\ttext:token_seq\na\t\xff\n", "line 2, column 'text': .*is not UTF-8"),
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


def test_an_identity_travels_and_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv")
    (source,) = find("rows.csv", tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert "identity" not in vars(source)
    (known,) = pickle.loads(pickle.dumps(identified([source])))
    path.unlink()
    assert known.identity == {"name": "rows.csv", "format": "csv", "bytes": known.bytes, "sha256": digest}


def test_identity_of_a_large_file_is_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphafuse.data.importers.source.HASHED_BYTES", 10)
    path = write(tmp_path / "rows.csv")
    identity = find("rows.csv", tmp_path)[0].identity
    assert identity["bytes"] == path.stat().st_size
    assert "modified" in identity
    assert "sha256" not in identity


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    return [row for source in find(str(path)) for table in source.read(columns)
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
    with pytest.raises(
        DataError, match=r"(?s)cannot be loaded as a Hugging Face data set: .*name the Parquet, JSON lines or CSV files"
    ):
        find(f"hf://{tmp_path}/set")


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("rows.csv", b"\xef\xbb\xbfitem_id,text\r\n1,a\r\n2,\xc3\xa9", {}),
        ("rows.csv.gz", gzip.compress(b"\xef\xbb\xbfitem_id,text\r1,a\r2,\xc3\xa9\r", mtime=0), {}),
        ("rows.csv", b"\n\nitem_id,text\n\n1,a\n\n2,\xc3\xa9\n\n", {}),
        ("rows.csv", b"item_id;text;\n1;a;\n2;\xc3\xa9;\n", {"separator": ";"}),
        ("rows.csv", b"item_id\ttext\n1\ta\n2\t\xc3\xa9\n", {"separator": "\t"}),
        ("rows.csv", b"item_id,text\n1,a\n2,\xe9\n", {"encoding": "cp1252"}),
        ("rows.csv", "item_id,text\n1,a\n2,é\n".encode("utf-16"), {"encoding": "utf-16"}),
        ("rows.csv", "item_id,text\n1,a\n2,é".encode("utf-16-be"), {"encoding": "utf-16-be"}),
        ("rows.csv", b"1,a\n2,\xc3\xa9\n", {"columns": ("item_id", "text")}),
        ("rows.dat", b"1::a::x:y\n2::\xe9::\n", {
            "format": "csv", "separator": "::", "encoding": "latin-1", "columns": ("item_id", "text", "unused"),
        }),
        ("rows.dat", "item_id¦text\n1¦a\n2¦é\n".encode(), {"format": "csv", "separator": "¦"}),
        ("rows.item", b"item_id:token\ttext:token_seq\n1\ta\n2\t\xe9\n", {"encoding": "latin-1"}),
    ],
)  # fmt: skip
def test_text_files_as_programs_write_them(tmp_path: Path, name: str, content: bytes, options: dict[str, Any]) -> None:
    (tmp_path / name).write_bytes(content)
    assert read(find(name, tmp_path, **options)) == [{"item_id": "1", "text": "a"}, {"item_id": "2", "text": "é"}]


def test_encodings_and_separators_over_the_ends_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("csv", "text_stream"):
        monkeypatch.setattr(f"alphafuse.data.importers.{module}.BLOCK_BYTES", 61)
    rows = [{"item_id": str(number), "text": "é:" * (number % 7)} for number in range(200)]
    for encoding in ("utf-8", "latin-1", "utf-16"):
        lines = ["item_id::text", *(f"{row['item_id']}::{row['text']}" for row in rows)]
        (tmp_path / "rows.dat").write_bytes("\n".join(lines).replace("é:", "é;").encode(encoding))
        found = read(find("rows.dat", tmp_path, format="csv", separator="::", encoding=encoding))
        assert found == [{**row, "text": row["text"].replace(":", ";") or None} for row in rows]


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    for content in (b"item_id,text\n", b"item_id,text"):
        (tmp_path / "rows.csv").write_bytes(content)
        assert read(find("rows.csv", tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "rows.parquet",
            {"separator": ";"},
            "`separator: ;` has no meaning for .*rows.parquet, whose format is parquet",
        ),
        ("rows.csv", {"split": "train"}, "`split: train` has no meaning"),
        ("rows.csv", {"name": "x"}, "`name: x` has no meaning"),
    ],
)
def test_settings_that_a_format_does_not_know_are_refused(
    tmp_path: Path, name: str, options: dict[str, Any], message: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(DataError, match=message):
        find(name, tmp_path, **options)


def test_a_folder_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "data [1]/rows.csv")
    for path in ("data [1]/*.csv", "data [1]", "data [1]/rows.csv"):
        assert read(find(path, tmp_path)) == EXPECTED
    assert read(find("*.csv", tmp_path / "data [1]")) == EXPECTED
    with pytest.raises(DataError, match="there is no file or folder"):
        find("data [1]/other.csv", tmp_path)


def test_a_glob_that_matches_folders_says_how_to_read_their_files(tmp_path: Path) -> None:
    write(tmp_path / "log/day=1/rows.csv")
    with pytest.raises(DataError, match=r"matches folders alone, such as day=1; .* write .*/log/\*/\*\*"):
        find("log/*", tmp_path)
    assert read(find("log/*/**", tmp_path)) == EXPECTED
    write(tmp_path / "log/rows.csv")
    assert find_all_files("data", SourceConfig(path="log/*"), str(tmp_path)).unread == ["day=1"]


def test_what_is_left_out_of_a_folder_is_known(tmp_path: Path) -> None:
    write(tmp_path / "log/part-0.csv")
    for name in ("part-1", "part-2.csv.zip", "_SUCCESS", ".part-0.csv.crc", "README", "meta.json", "part-0.csv.md5"):
        (tmp_path / "log" / name).write_text("x")
    assert read(find("log", tmp_path)) == EXPECTED
    assert find_all_files("data", SourceConfig(path="log"), str(tmp_path)).unread == ["part-1", "part-2.csv.zip"]
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/part-0").write_text("item_id,text\n1,a\n")
    with pytest.raises(DataError, match=r"no files match .*; there are part-0\. Set `format` beside `path`"):
        find("bare", tmp_path)
    assert read(find("bare", tmp_path, format="csv")) == [{"item_id": "1", "text": "a"}]


def test_an_empty_part_is_named(tmp_path: Path) -> None:
    write(tmp_path / "log/0.csv")
    (tmp_path / "log/1.csv").touch()
    with pytest.raises(DataError, match=r"log/1\.csv has 0 bytes"):
        find("log", tmp_path)


def test_no_row_is_read_twice_through_links(tmp_path: Path) -> None:
    write(tmp_path / "log/0.csv")
    outside = write(tmp_path / "elsewhere/rows/1.csv", ROWS[:1])
    (tmp_path / "log/other").symlink_to(outside.parent)
    assert read(find("log", tmp_path)) == EXPECTED + EXPECTED[:1]
    for name, target, message in (
        ("circle", tmp_path / "log", "circle is a link to .*log, whose rows would be read twice"),
        ("again.csv", tmp_path / "log/0.csv", "again.csv is a link to .*0.csv, whose rows"),
        ("lost.csv", tmp_path / "nothing.csv", "the link .*lost.csv leads nowhere"),
    ):
        link = tmp_path / "log" / name
        link.symlink_to(target)
        with pytest.raises(DataError, match=message):
            find("log", tmp_path)
        link.unlink()


def test_configurations_of_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "set/items.csv")
    write(tmp_path / "set/log.csv", [{"user_id": "u", "item_id": "c"}])
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.csv\n" for name in ("items", "log"))
    (tmp_path / "set/README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert [row["text"] for row in read(find("hf://set", tmp_path, name="items"))] == [row["text"] for row in EXPECTED]
    with pytest.raises(DataError, match=r"(?s)'items', 'log'.*Set `name` beside `path` to one of these"):
        find("hf://set", tmp_path)
    with pytest.raises(DataError, match=r"(?s)BuilderConfig 'other' not found.*Set `name`"):
        find("hf://set", tmp_path, name="other")


def test_whatever_datasets_raises_is_told(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/set.py").write_text("import datasets\n")
    with pytest.raises(DataError, match="loaded by a script of their own are not read: name the Parquet"):
        find("hf://set", tmp_path)
    for name, content in (
        ("a.json", b"{broken"),
        ("a.parquet", b"PAR1"),
        ("a.csv", b"\xff,\xfe\n1\n1,2,3\n"),
        ("a.zip", b"PK"),
    ):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match="cannot be loaded as a Hugging Face data set: "):
            find(f"hf://{folder}")


@pytest.mark.parametrize(
    ("name", "separator", "quote"),
    [("a.csv", ",", '"'), ("a.tsv", "\t", '"'), ("a.tsv", "\t", ""), ("a.inter", "\t", "")],
)
def test_a_look_reads_the_beginning_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, separator: str, quote: str
) -> None:
    """The first rows are those of `read`, also where the beginning ends inside of quotes; damage behind is not met."""
    monkeypatch.setattr("alphafuse.data.importers.text_stream.BLOCK_BYTES", 400)
    monkeypatch.setattr("alphafuse.data.importers.csv.BLOCK_BYTES", 400)
    monkeypatch.setattr("alphafuse.data.importers.csv.HEAD_BYTES", 90)
    header = separator.join(["id:token", "title:token_seq"] if name == "a.inter" else ["id", "title"])
    end = "\n" if quote else " "
    rows = [f"{number}{separator}{quote}a title{end}of two lines{quote}" for number in range(300)]
    (tmp_path / name).write_text("\n".join([header, *rows]) + "\n")
    source = find_sources("data.catalog.path", SourceConfig(path=name), str(tmp_path))[0]
    expected = next(iter(source.read(["id", "title"]))).to_pylist()
    (tmp_path / name).write_text("\n".join([header, *rows, "1"]) + f'\n2{separator}"open')
    found = source.peek(["id", "title"]).to_pylist()
    assert 1 <= len(found) < 10
    assert found == expected[: len(found)]
