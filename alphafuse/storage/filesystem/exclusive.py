"""Creates files that must not exist yet: of several processes that try it at once, one succeeds.

This is the compare-and-swap of storage that has no locks. Local file systems link a whole file to its name; fsspec has
the mode "create"; the clouds that pyarrow opens itself are asked with a conditional request (`If-None-Match: *`), which
pyarrow does not offer and obstore does.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable

import pyarrow.fs as pafs

from alphafuse.extras import require_package
from alphafuse.storage.filesystem.folder import TEMPORARY_SUFFIX, Folder, retried
from alphafuse.storage.filesystem.fsspec_adapter import FsspecAdapter


@retried
def create(folder: Folder, name: str, content: bytes) -> bool:
    """Write a file whole, unless there is one with this name.

    Returns:
        True if the file holds this content, which an earlier attempt whose answer was lost may have written; False if
        it holds another one.

    Raises:
        MissingPackageError: the storage needs a package that is not installed.
    """
    try:
        _writer(folder)(folder.open()[1], name, content)
    except FileExistsError:
        return folder.read_bytes(name) == content
    return True


def require_create(folder: Folder) -> None:
    """Check that `create` can write to the storage of a folder, which need not exist.

    Raises:
        MissingPackageError: it needs a package that is not installed.
    """
    _writer(folder)


def _writer(folder: Folder) -> Callable[[str, str, bytes], None]:
    """The function that writes a file, given by folder, name and content, and raises FileExistsError where it is."""
    filesystem, _ = folder.open()
    if isinstance(filesystem, pafs.LocalFileSystem):
        return _link
    if isinstance(filesystem, pafs.PyFileSystem) and isinstance(filesystem.handler, FsspecAdapter):
        created: Callable[[str, str, bytes], None] = filesystem.handler.create_file
        return created
    return _conditional_put(folder, filesystem)


def _link(path: str, name: str, content: bytes) -> None:
    """Write a local file under a temporary name, then give it a second one, which fails where that is taken."""
    os.makedirs(path, exist_ok=True)
    temporary = os.path.join(path, f".{name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    try:
        with open(temporary, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())  # else the file might be empty after a loss of power
        os.link(temporary, os.path.join(path, name))
    finally:
        os.unlink(temporary)


def _conditional_put(folder: Folder, filesystem: pafs.FileSystem) -> Callable[[str, str, bytes], None]:
    """The function that writes to a bucket; credentials come from where pyarrow takes them, too."""
    require_package("obstore", f"{folder.uri} is written to with conditional requests, which")
    from obstore.exceptions import AlreadyExistsError
    from obstore.store import from_url

    # The address of another store than AWS comes from AWS_ENDPOINT_URL for both packages.
    s3 = {"region": filesystem.region} if isinstance(filesystem, pafs.S3FileSystem) else {}
    store = from_url(folder.uri, client_options={"allow_http": True}, **s3)

    def put(path: str, name: str, content: bytes) -> None:
        try:
            store.put(name, content, mode="create")
        except AlreadyExistsError as error:
            raise FileExistsError(f"{folder.uri}/{name} exists") from error

    return put
