"""Files that must not exist yet: one of many writers wins, on every kind of storage."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from support.servers.object_store import ObjectStore

from alphafuse.storage.filesystem.exclusive import create
from alphafuse.storage.filesystem.folder import Folder


def test_one_of_many_writers_wins_on_a_disk(tmp_path: Path) -> None:
    _race(Folder(str(tmp_path / "new" / "folder")))
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["file"]


def test_one_of_many_writers_wins_in_a_bucket(bucket: ObjectStore) -> None:
    _race(Folder("s3://bucket/a/b"))
    refused = [request for request in bucket.requests if request.kind == "PutObject" and request.status == 412]
    assert len(refused) == 8  # seven writers, and the winner again


def _race(folder: Folder) -> None:
    contents, together = [f"writer {number}".encode() for number in range(8)], Barrier(8)

    def write(content: bytes) -> bool:
        together.wait()
        return create(folder, "file", content)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, contents))
    assert sum(won) == 1
    assert folder.read_bytes("file") == contents[won.index(True)]
    assert create(folder, "file", contents[won.index(True)])  # as after a lost answer


@pytest.mark.parametrize("uri", ["memory://exclusive/folder", ""])
def test_a_file_is_never_overwritten(tmp_path: Path, uri: str) -> None:
    folder = Folder(uri or str(tmp_path))
    assert create(folder, "file", b"first")
    assert not create(folder, "file", b"second")
    assert folder.read_bytes("file") == b"first"


def test_a_write_whose_answer_is_lost_counts(bucket: ObjectStore) -> None:
    bucket.fail("PutObject", "lost answer")
    assert create(Folder("s3://bucket/a"), "file", b"mine")
    assert bucket.objects == {"a/file": b"mine"}


def test_a_disk_without_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        create(Folder(str(tmp_path)), "file", b"content")
    assert list(tmp_path.iterdir()) == []
