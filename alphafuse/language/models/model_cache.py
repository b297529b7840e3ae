"""Models that this machine keeps: those of object stores, fetched once, and checksums of weights, computed once.

Everything lies in a folder that its user alone can write to. A file counts as unchanged as long as its size, its times
and its inode are the same; the time of a change cannot be set back by a user.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import shutil
from contextlib import suppress
from pathlib import Path

import pyarrow.fs as pafs
from filelock import FileLock

from alphafuse.errors import ConfigError
from alphafuse.storage.filesystem.folder import Folder, open_filesystem
from alphafuse.storage.filesystem.private_folder import cache_folder, make_private

NOT_NEEDED = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot"]
"""Files of a model that the engines do not read."""
_PIECE_BYTES = 1 << 24


def fetched(uri: str) -> str:
    """Folder on this machine with the files of a model in an object store, fetched where they are not there yet.

    The folder is named by what the store lists: names, sizes and times. A model that has changed there is another
    folder here, and one that is being read stays as it is. Processes of one machine wait for one another.

    Raises:
        ConfigError: there is no such model, the store cannot be read, or the files change while they are fetched.
    """
    try:
        files = _listed(uri)
        if "config.json" not in files:
            raise _no_model(uri)
        models = cache_folder("models")
        make_private(models)
        folder = models / hashlib.sha256(json.dumps([uri, files]).encode()).hexdigest()[:32]
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                _fetch(uri, files, folder)
    except OSError as error:
        raise ConfigError(f"embed.model {uri!r} cannot be fetched: {error}") from error
    return str(folder)


def require_stored(uri: str) -> None:
    """Check that there is a model in an object store, without fetching it.

    Raises:
        ConfigError: there is none.
        OSError: the store cannot be read.
    """
    if not Folder(uri).exists("config.json"):
        raise _no_model(uri)


def checksum(path: str) -> str:
    """SHA-256 of a local file, remembered between processes."""
    known = _checksum_record(path)
    status = os.stat(path)
    stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]
    if known is not None:
        with suppress(OSError, ValueError, TypeError, KeyError):
            record = json.loads(known.read_text(encoding="utf-8"))
            if record["stamp"] == stamp:
                return str(record["sha256"])
    with open(path, "rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if known is not None:
        with suppress(OSError):
            Folder(str(known.parent)).write_bytes(known.name, json.dumps({"stamp": stamp, "sha256": sha256}).encode())
    return sha256


def _checksum_record(path: str) -> Path | None:
    """File that remembers the checksum of another one; None where this user has no private folder for it."""
    folder = cache_folder("checksums")
    try:
        make_private(folder)
    except OSError:
        return None
    return folder / f"{hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:32]}.json"


def _no_model(uri: str) -> ConfigError:
    return ConfigError(f"embed.model {uri!r}: there is no config.json; give the folder of a Hugging Face model")


def _listed(uri: str) -> dict[str, list[int]]:
    """Size and time of change (ns) of each file of a model that engines read, by its path inside of the model."""
    filesystem, root = open_filesystem(uri)
    files = {}
    for info in filesystem.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True)):
        name = posixpath.relpath(info.path, root)
        needed = not any(Path(name).match(pattern) for pattern in NOT_NEEDED)
        if info.type == pafs.FileType.File and needed:
            files[name] = [info.size, info.mtime_ns or 0]
    return dict(sorted(files.items()))


def _fetch(uri: str, files: dict[str, list[int]], folder: Path) -> None:
    """Fetch the files into a folder, which appears when all are there."""
    filesystem, root = open_filesystem(uri)
    coming = folder.with_suffix(".coming")
    shutil.rmtree(coming, ignore_errors=True)  # of a process that died; nobody else is here
    for name, (size, _) in files.items():
        target = coming / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with filesystem.open_input_stream(f"{root}/{name}") as source, open(target, "wb") as copy:
            shutil.copyfileobj(source, copy, _PIECE_BYTES)
        if target.stat().st_size != size:
            raise ConfigError(f"embed.model {uri!r}: {name} changed while it was fetched; run the same command again")
    coming.rename(folder)
