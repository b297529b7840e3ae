"""Opens any storage that pyarrow or fsspec knows, and writes files such that a reader never sees half of one.

Owns paths and atomic replacement: in buckets by the upload itself, elsewhere by a rename. Knows nothing of the contents
of the files.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import importlib.util
import mmap
import os
import posixpath
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, ParamSpec, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs

from alphafuse.errors import DataError, ResourceError
from alphafuse.storage.filesystem import buckets
from alphafuse.storage.filesystem.fsspec_adapter import FsspecAdapter
from alphafuse.storage.filesystem.retries import attempts

P = ParamSpec("P")
R = TypeVar("R")

TEMPORARY_SUFFIX = ".tmp"
PIECE_BYTES = 8 * 2**20


def retried(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator that calls a repeatable function again if storage fails for a moment (see `storage/retries.py`)."""

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        return attempts()(function, *arguments, **named)

    return call


def resolve(path: str, folder: str = ".") -> str:
    """Return `path` as a URI or an absolute local path.

    `package://NAME/FILE` names a file that ships inside an installed Python package; a relative path is
    taken relative to `folder`, which may itself be a URI.

    Raises:
        DataError: the package is not installed.
    """
    if path.startswith("package://"):
        package, _, inner = path.removeprefix("package://").partition("/")
        try:
            # Found without an import, since a package may be installed for its data alone, without its dependencies.
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise DataError(f"{path}: the package {package!r} is not installed; install it, or give another path")
        return os.path.join(spec.submodule_search_locations[0], inner)
    if "://" in path:
        return path
    if "://" in folder:
        scheme, _, inside = folder.partition("://")
        return f"{scheme}://{posixpath.normpath(f'{inside}/{path}')}"  # object stores know no ".."
    return os.path.abspath(os.path.expanduser(os.path.join(os.path.expanduser(folder), path)))


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of `uri` and the path inside it (local paths, s3://, gs://, any fsspec scheme)."""
    if "://" not in uri:
        return pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(uri))
    if uri.startswith("s3://") and "?" not in uri:  # with a query, every client has its own settings
        return buckets.open_s3(uri)
    try:
        return pafs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid:
        filesystem, path = fsspec.core.url_to_fs(uri)
        return pafs.PyFileSystem(FsspecAdapter(filesystem)), path


@dataclass(frozen=True)
class Folder:
    """A folder on some file system. Picklable: workers on other machines open it themselves."""

    uri: str

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.uri.rstrip("/") + "/" + name)

    def open(self) -> tuple[pafs.FileSystem, str]:
        """The file system and this folder's path in it."""
        return open_filesystem(self.uri)

    @retried
    def exists(self, name: str = "") -> bool:
        filesystem, path = self.open()
        return filesystem.get_file_info(_join(path, name)).type != pafs.FileType.NotFound

    def names(self) -> list[str]:
        """Names of the files and folders directly inside, sorted; empty if the folder does not exist."""
        return sorted(self.sizes())

    @retried
    def sizes(self) -> dict[str, int | None]:
        """Bytes of each file directly inside, by name; None for folders. Empty if the folder does not exist."""
        filesystem, path = self.open()
        selector = pafs.FileSelector(path, allow_not_found=True)
        return {info.base_name: info.size for info in filesystem.get_file_info(selector)}

    @retried
    def read_bytes(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: there is none, or the name is that of a pipe or a device, which might never end.
        """
        filesystem, path = self.open()
        local = isinstance(filesystem, pafs.LocalFileSystem)
        if local and filesystem.get_file_info(_join(path, name)).type == pafs.FileType.Unknown:
            raise FileNotFoundError(errno.ENOENT, "not a regular file", _join(path, name))
        if buckets.is_bucket(filesystem):
            return b"".join(buckets.read_pieces(filesystem, _join(path, name)))
        with filesystem.open_input_stream(_join(path, name)) as stream:
            return stream.read()

    @retried
    def sha256(self, name: str) -> str:
        """The SHA-256 of a file, which is read piece by piece."""
        filesystem, path = self.open()
        digest = hashlib.sha256()
        if buckets.is_bucket(filesystem):
            for part in buckets.read_pieces(filesystem, _join(path, name)):
                digest.update(part)
            return digest.hexdigest()
        with filesystem.open_input_stream(_join(path, name)) as stream:
            while piece := stream.read(PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest()

    @retried
    def write_bytes(self, name: str, content: bytes | pa.Buffer) -> str:
        """Write a file whole or not at all; return the SHA-256 of its content.

        Raises:
            ResourceError: the storage is full.
        """
        filesystem, _ = self.open()
        if buckets.is_bucket(filesystem):
            self._put(name, pa.py_buffer(content))
            return hashlib.sha256(content).hexdigest()
        with self._renaming(name, lambda call, *arguments: call(*arguments)) as stream:
            stream.write(content)
        return stream.sha256.hexdigest()

    def writing(self, name: str) -> AbstractContextManager[HashedStream]:
        """Open a stream to a file, which exists after the `with` block has ended without an error.

        The content goes to a temporary file: beside the target, which is renamed when complete; for a bucket in the
        folder of this machine for such files, from where it is uploaded when complete.

        Raises:
            ResourceError: the storage is full.
        """
        filesystem, _ = self.open()
        return self._uploading(name) if buckets.is_bucket(filesystem) else self._renaming(name, attempts())

    @contextmanager
    def _uploading(self, name: str) -> Iterator[HashedStream]:
        """Implementation of `writing` for buckets."""
        with tempfile.TemporaryFile() as file:
            yield HashedStream(file)
            file.flush()
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""  # no empty maps
            attempts()(self._put, name, pa.py_buffer(content))

    def _put(self, name: str, content: pa.Buffer) -> None:
        """Write an object of a bucket whole or not at all."""
        filesystem, path = self.open()
        if self.uri.startswith("s3://") and content.size < buckets.SINGLE_BYTES:
            filesystem, path = buckets.open_s3(self.uri, delayed=True)
        buckets.put(filesystem, _join(path, name), content)

    @contextmanager
    def _renaming(self, name: str, perform: Callable[..., Any]) -> Iterator[HashedStream]:
        """Write under a temporary name; `perform` calls a function with arguments, and may repeat the call."""
        filesystem, path = self.open()
        temporary = _join(path, f".{name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
        try:
            perform(filesystem.create_dir, path)
            with perform(filesystem.open_output_stream, temporary) as stream:
                yield HashedStream(stream)
            if isinstance(filesystem, pafs.LocalFileSystem):
                _sync_to_disk(temporary)
            perform(filesystem.move, temporary, _join(path, name))
        except BaseException as error:
            if filesystem.get_file_info(temporary).type != pafs.FileType.NotFound:
                filesystem.delete_file(temporary)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceError(
                    f"{self.uri}/{name} cannot be written: {os.strerror(error.errno)}. Free some space, then run the "
                    "same command: what is finished is kept"
                ) from error
            raise

    @retried
    def delete_files(self, names: Sequence[str]) -> None:
        """Delete files directly inside; missing ones are no error."""
        filesystem, path = self.open()
        for name in names:
            with suppress(FileNotFoundError):
                filesystem.delete_file(_join(path, name))

    def move_to(self, target: Folder, last: Sequence[str] = ()) -> None:
        """Give the folder the place of `target`, on the same storage, where nothing is, or what an interrupted call has
        left. On local file systems this is one step; elsewhere files are copied, and deleted afterwards.

        Args:
            last: names of files that are copied last and deleted first: where they are, all others are.
        """
        filesystem, path = self.open()
        if isinstance(filesystem, pafs.LocalFileSystem):
            filesystem.move(path, target.open()[1])
            return
        self._copy_to(target, last)
        self.delete_files(last)
        self.delete()

    def _copy_to(self, target: Folder, last: Sequence[str]) -> None:
        """Copy all files, and those of all folders inside."""
        filesystem, path = self.open()
        _, destination = target.open()
        attempts()(filesystem.create_dir, destination)
        for name, size in sorted(self.sizes().items(), key=lambda entry: entry[0] in last):
            if size is None:
                (self / name)._copy_to(target / name, ())
            elif buckets.is_bucket(filesystem) and size >= buckets.COPY_BYTES:
                with target.writing(name) as stream:
                    for piece in buckets.read_pieces(filesystem, _join(path, name)):
                        stream.write(piece)
            else:
                attempts()(filesystem.copy_file, _join(path, name), _join(destination, name))

    @retried
    def delete(self) -> None:
        """Delete the folder and everything in it; does nothing if it does not exist."""
        filesystem, path = self.open()
        if self.exists():
            filesystem.delete_dir(path)


class HashedStream:
    """A file-like object that passes on what is written, and counts and hashes it. It has the methods that pyarrow's
    writers call.

    Attributes:
        sha256: hash of everything written so far.
        bytes: number of bytes written so far.
    """

    closed = False

    def __init__(self, stream: pa.NativeFile | IO[bytes]) -> None:
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        self._stream = stream

    def write(self, content: bytes | pa.Buffer) -> int:
        self._stream.write(content)
        self.sha256.update(content)
        self.bytes += len(content)
        return len(content)

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """Does nothing: the caller that opened the wrapped stream closes it."""


def is_temporary(name: str) -> bool:
    """Tell whether a file is one that a writer has not renamed yet; writers that were killed leave such files."""
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)


def _sync_to_disk(path: str) -> None:
    """Wait until a local file is on the disk. Without this, a renamed file may be empty after a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if name else path
