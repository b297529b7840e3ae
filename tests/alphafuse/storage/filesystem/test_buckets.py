"""Files in a bucket: whole or not there, whatever fails, and in a bounded number of requests."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress

import pyarrow as pa
import pytest
from support.servers.object_store import Failure, ObjectStore

from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem import buckets, retries
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.manifest import fingerprint

SMALL = b"content"
LARGE = random.Random(0).randbytes(11_000_000)
"""Two parts of a multipart upload."""
FOLDER = Folder("s3://bucket/run/model")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.01)


def test_a_small_file_is_one_request_and_a_large_one_an_upload_of_parts(bucket: ObjectStore) -> None:
    FOLDER.write_bytes("small", SMALL)
    assert bucket.counts() == {"PutObject": 1}
    FOLDER.write_bytes("large", LARGE)
    assert bucket.counts("large") == {"CreateMultipartUpload": 1, "UploadPart": 2, "CompleteMultipartUpload": 1}
    assert bucket.objects == {"run/model/small": SMALL, "run/model/large": LARGE}


def test_an_empty_file_is_one(bucket: ObjectStore) -> None:
    with FOLDER.writing("streamed"):
        pass
    FOLDER.write_bytes("given", b"")
    assert bucket.objects == {"run/model/streamed": b"", "run/model/given": b""}
    assert FOLDER.read_bytes("streamed") == FOLDER.read_bytes("given") == b""


def test_a_file_is_read_once_in_large_pieces(bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "PIECE_BYTES", 4_000_000)
    FOLDER.write_bytes("large", LARGE)
    assert FOLDER.read_bytes("large") == LARGE
    assert bucket.counts("large") & Counter(HeadObject=9, GetObject=9) == {"HeadObject": 1, "GetObject": 3}
    assert bucket.downloaded() == len(LARGE)
    with pytest.raises(FileNotFoundError):
        FOLDER.read_bytes("none")


def test_a_written_table_costs_few_requests(bucket: ObjectStore) -> None:
    artifact = Artifact(FOLDER, "model", "train")
    table = pa.table({"x": range(100)})
    for name in ("one", "two", "three"):
        artifact.write_table(name, table, fingerprint({"inputs": 1}))
    assert bucket.counts() == {"PutObject": 6}  # each with its record
    bucket.requests.clear()
    artifact.commit({"inputs": 1})
    assert bucket.counts()["PutObject"] == 2  # manifest and its copy
    assert bucket.counts() <= Counter(PutObject=2, HeadObject=3, GetObject=3, ListObjects=2)  # of the records


@pytest.mark.parametrize("failure", ["slow down", "reset", "lost answer"])
@pytest.mark.parametrize("kind", ["PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
def test_a_write_survives_a_fault(bucket: ObjectStore, kind: str, failure: Failure) -> None:
    content = SMALL if kind == "PutObject" else LARGE
    bucket.fail(kind, failure)
    FOLDER.write_bytes("file", content)
    assert bucket.objects["run/model/file"] == content


@pytest.mark.parametrize("failure", ["slow down", "reset", "truncated"])
def test_a_read_survives_a_fault(bucket: ObjectStore, failure: Failure) -> None:
    FOLDER.write_bytes("file", LARGE)
    bucket.fail("GetObject", failure)
    assert FOLDER.read_bytes("file") == LARGE


@pytest.mark.parametrize("kind", ["PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
def test_a_write_that_fails_leaves_nothing(bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    bucket.fail(kind, "denied", times=9)
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        FOLDER.write_bytes("file", SMALL if kind == "PutObject" else LARGE)
    assert bucket.objects == {}


def test_a_stream_that_is_interrupted_leaves_nothing(bucket: ObjectStore) -> None:
    with suppress(KeyboardInterrupt), FOLDER.writing("file") as stream:
        stream.write(LARGE)
        raise KeyboardInterrupt
    assert bucket.objects == {}
    with FOLDER.writing("file") as stream:
        stream.write(LARGE[:1000])
        stream.write(LARGE[1000:])
    assert bucket.objects == {"run/model/file": LARGE}


def test_a_replaced_file_is_the_old_one_or_the_new_one(bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    FOLDER.write_bytes("file", SMALL)
    bucket.fail("UploadPart", "denied", times=9)
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        FOLDER.write_bytes("file", LARGE)
    assert bucket.objects == {"run/model/file": SMALL}


def test_deleted_files_are_gone_and_missing_ones_are_no_error(bucket: ObjectStore) -> None:
    for name in ("a", "b"):
        FOLDER.write_bytes(name, SMALL)
    bucket.requests.clear()
    FOLDER.delete_files(["a"])
    assert bucket.counts() == {"HeadObject": 1, "DeleteObject": 1, "PutObject": 1}
    FOLDER.delete_files(["a", "missing"])
    assert FOLDER.names() == ["b"]
    bucket.requests.clear()
    FOLDER.delete()
    assert bucket.counts().total() <= 7
    assert not FOLDER.exists()


def test_a_moved_folder_is_copied_but_for_what_is_too_large_for_that(
    bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "COPY_BYTES", 10_000_000)
    FOLDER.write_bytes("small", SMALL)
    (FOLDER / "inner").write_bytes("large", LARGE)
    FOLDER.move_to(Folder("s3://bucket/new"), last=["small"])
    assert {key: value for key, value in bucket.objects.items() if value} == {
        "new/small": SMALL,
        "new/inner/large": LARGE,
    }
    assert bucket.counts()["CopyObject"] == 1
