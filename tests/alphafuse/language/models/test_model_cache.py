"""Models that are fetched once from an object store, and checksums that are computed once."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from alphafuse.errors import ConfigError
from alphafuse.language.models import model_cache
from alphafuse.language.models.language_model import LanguageModel
from alphafuse.language.models.model_cache import checksum, fetched

FILES = {
    "config.json": json.dumps({"max_position_embeddings": 512}).encode(),
    "model.safetensors": bytes(range(256)) * 100,
    "1_Pooling/config.json": json.dumps({"pooling_mode_mean_tokens": True}).encode(),
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "alphafuse"


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    """An object store with a model, and with a file that no engine reads."""
    memory = fsspec.filesystem("memory")
    for name, content in FILES.items():
        memory.pipe(f"/models/minilm/{name}", content)
    memory.pipe("/models/minilm/onnx/model.onnx", b"not needed")
    yield memory
    memory.rm("/models", recursive=True)


def _opened(store: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of the store that are opened from now on."""
    names, opened = list[str](), type(store)._open

    def note(self: fsspec.AbstractFileSystem, path: str, *arguments: object, **settings: object) -> object:
        names.append(path)
        return opened(self, path, *arguments, **settings)

    monkeypatch.setattr(type(store), "_open", note)
    return names


def test_a_model_is_fetched_once_and_again_when_it_has_changed(
    store: fsspec.AbstractFileSystem, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = _opened(store, monkeypatch)
    folder = Path(fetched("memory://models/minilm"))
    assert {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()} == FILES
    assert stat.S_IMODE((cache / "models").stat().st_mode) == 0o700
    assert len(opened) == len(FILES)
    assert fetched("memory://models/minilm") == str(folder)
    assert len(opened) == len(FILES)
    store.pipe("/models/minilm/model.safetensors", b"other weights")
    again = Path(fetched("memory://models/minilm"))
    assert again != folder
    assert (again / "model.safetensors").read_bytes() == b"other weights"
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]  # an engine may read it


def test_processes_that_start_together_fetch_a_model_once(
    store: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = _opened(store, monkeypatch)
    starts = [threading.Thread(target=fetched, args=("memory://models/minilm",)) for _ in range(4)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert len(opened) == len(FILES)


def test_a_fetch_that_was_interrupted_is_made_again_as_a_whole(
    store: fsspec.AbstractFileSystem, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(model_cache.shutil, "copyfileobj", lambda source, copy, length: copy.write(source.read(5)))
        with pytest.raises(ConfigError, match=r"1_Pooling/config.json changed while it was fetched"):
            fetched("memory://models/minilm")
    assert (Path(fetched("memory://models/minilm")) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert not list((cache / "models").glob("*.coming"))


@pytest.mark.usefixtures("store")
def test_the_model_of_a_store_is_identified_by_its_files_and_looked_at_without_fetching(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = LanguageModel("memory://models/minilm", max_length=16)
    model.look()
    files = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(FILES.items())}
    assert model.identity()["files"] == files
    monkeypatch.setattr(model_cache, "fetched", None)
    missing = LanguageModel("memory://models/nothing")
    for look in (missing.look, missing.folder):
        with pytest.raises(ConfigError, match=r"memory://models/nothing': there is no config.json"):
            look()


def test_a_checksum_is_computed_again_only_for_a_changed_file(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, computed = tmp_path / "model.safetensors", list[str]()
    weights.write_bytes(b"weights")
    digest = hashlib.file_digest

    def note(stream: object, name: str) -> object:
        computed.append(name)
        return digest(stream, name)  # type: ignore[arg-type]

    monkeypatch.setattr(model_cache.hashlib, "file_digest", note)
    for _ in range(2):
        assert checksum(str(weights)) == hashlib.sha256(b"weights").hexdigest()
    assert len(computed) == 1
    before = weights.stat()
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps times
    assert checksum(str(weights)) == hashlib.sha256(b"WEIGHTS").hexdigest()
    (record,) = (cache / "checksums").iterdir()
    record.write_text("not JSON")
    assert checksum(str(weights)) == hashlib.sha256(b"WEIGHTS").hexdigest()
    assert len(computed) == 3
