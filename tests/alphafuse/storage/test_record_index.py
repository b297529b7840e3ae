"""Files whose records lie in indexes are read like those with a record beside each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from alphafuse.storage import record_index
from alphafuse.storage.manifest import FileRecord, index_to_json
from alphafuse.storage.record_index import RecordIndex
from alphafuse.storage.recorded_files import RecordedFiles
from alphafuse.storage.verification import examine
from alphafuse.storage.workspace import Workspace


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordedFiles:
    """A folder in which an index is full with four records."""
    four = _write(Workspace(str(tmp_path / "other")).artifact("embeddings"), None, 0, 1, 2, 3)
    monkeypatch.setattr(record_index, "FULL_BYTES", len(index_to_json(list(four.values()))) - 4)  # numbers may vary
    return Workspace(str(tmp_path / "run")).artifact("embeddings").inner("vectors")


def _write(files: RecordedFiles, index: RecordIndex | None, *numbers: int) -> dict[str, FileRecord]:
    return {
        f"{number}.parquet": files.write_table(f"{number}.parquet", pa.table({"x": [number]}), "f", index=index)
        for number in numbers
    }


def _indexes(files: RecordedFiles) -> list[str]:
    return [name for name in files.folder.names() if name.endswith(".records.json")]


def test_records_of_several_writers_are_read_back(files: RecordedFiles) -> None:
    first, second = RecordIndex(files.folder), RecordIndex(files.folder)
    wanted = _write(files, first, *range(9)) | _write(files, second, 9) | _write(files, None, 10)
    assert files.committed_files("f") == wanted
    assert len(_indexes(files)) == 3 + 1  # 4, 4 and 1 records of the first writer
    assert [name for name in files.folder.names() if name.endswith(".record.json")] == ["10.parquet.record.json"]


def test_threads_share_an_index(files: RecordedFiles) -> None:
    index = RecordIndex(files.folder)
    with ThreadPoolExecutor(8) as threads:
        written = list(threads.map(lambda number: _write(files, index, number), range(40)))
    assert files.records() == {name: record for part in written for name, record in part.items()}
    assert len(_indexes(files)) == 10


def test_a_file_without_its_record_does_not_count_as_written(files: RecordedFiles) -> None:
    index = RecordIndex(files.folder)
    wanted = _write(files, index, 0, 1)
    files.folder.write_bytes("2.parquet", b"written when the process was killed")
    files.folder.delete_files(["1.parquet"])  # by hand: its record stays
    assert files.committed_files("f") == {"0.parquet": wanted["0.parquet"]}


def test_a_damaged_index_costs_its_own_files_alone(files: RecordedFiles) -> None:
    wanted = _write(files, RecordIndex(files.folder), 0, 1)
    _write(files, index := RecordIndex(files.folder), 2)
    content = files.folder.read_bytes(index._name)
    files.folder.write_bytes(index._name, content.replace(b'"rows": 1', b'"rows": 2'))
    assert files.committed_files("f") == wanted
    found = examine(Workspace(files.folder.uri.removesuffix("/embeddings/vectors")).artifact("embeddings"))
    (finding,) = found.findings
    assert finding.file == f"embeddings/vectors/{index._name}"
    found.repair()
    assert len(_indexes(files)) == 1


def test_a_file_with_two_different_records_does_not_count_as_written(files: RecordedFiles) -> None:
    """Two engines wrote it, one after the other; nobody knows whose content lies there."""
    index = RecordIndex(files.folder)
    kept = _write(files, index, 0)
    _write(files, index, 1)
    other = RecordIndex(files.folder)
    files.write_table("1.parquet", pa.table({"x": [-1]}), "f", index=other)
    files.write_table("0.parquet", pa.table({"x": [0]}), "f", index=other)  # the same content
    assert files.committed_files("f") == kept


def test_damaged_files_are_found_and_removed(files: RecordedFiles, tmp_path: Path) -> None:
    _write(files, RecordIndex(files.folder), 0, 1, 2)
    path = Path(files.folder.uri.removeprefix("file://")) / "1.parquet"
    path.write_bytes(path.read_bytes()[::-1])
    artifact = Workspace(str(tmp_path / "run")).artifact("embeddings")
    found = examine(artifact)
    assert [finding.file for finding in found.findings] == ["embeddings/vectors/1.parquet"]
    found.repair()
    assert set(files.committed_files("f")) == {"0.parquet", "2.parquet"}
    assert examine(artifact).findings == []
