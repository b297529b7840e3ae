"""Writes and reads objects of the stores that pyarrow opens itself (S3, Google Cloud, Azure), in few requests.

An upload appears under its final name at once, so nothing is written under another name and moved: a move is a copy,
which S3 refuses above 5 GB. This module knows nothing of folders.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

SINGLE_BYTES = 5 * 2**20
"""Content below this size is sent in one request; pyarrow sends larger content in parts of 10 MB and more."""
PIECE_BYTES = 16 * 2**20
"""Bytes that a request reads at most."""
COPY_BYTES = 5 * 10**9
"""Content from this size on is not copied within a store, since S3 refuses it, but read and written."""
CONNECTIONS = 8
"""Requests that read an object at a time."""


def is_bucket(filesystem: pafs.FileSystem) -> bool:
    """Tell whether an upload to this file system replaces an object whole or not at all."""
    kinds = ("S3FileSystem", "GcsFileSystem", "AzureFileSystem")  # pyarrow may be built without some of them
    return isinstance(filesystem, tuple(getattr(pafs, kind) for kind in kinds if hasattr(pafs, kind)))


def open_s3(uri: str, delayed: bool = False) -> tuple[pafs.FileSystem, str]:
    """Return the client of an `s3://` URI and the path for it. All URIs of a bucket share the client, since a new one
    asks for the region and opens new connections.

    Args:
        delayed: True: opening a file for writing sends nothing.
    """
    parts = urlsplit(uri)
    filesystem, bucket = _s3_client(parts.netloc, delayed)
    return filesystem, (bucket + unquote(parts.path)).rstrip("/")


@lru_cache(maxsize=64)
def _s3_client(bucket: str, delayed: bool) -> tuple[pafs.FileSystem, str]:
    client: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(
        f"s3://{bucket}" + "?allow_delayed_open=true" * delayed
    )
    return client


def forget_clients() -> None:
    """Open new clients from now on: credentials or addresses in the environment have changed."""
    _s3_client.cache_clear()


def put(filesystem: pafs.FileSystem, path: str, content: pa.Buffer) -> None:
    """Write an object whole or not at all.

    pyarrow completes an upload when its stream is closed, and also when the stream is dropped after an error or an
    interruption in between (https://github.com/apache/arrow/issues/40502). So all content is given in one call, in a
    thread, where nothing else can interrupt it.

    Args:
        filesystem: for content of `SINGLE_BYTES` and more one that opens files at once: after an open that was delayed
            and then fails, pyarrow would write the rest of the content as the object.
    """

    def upload() -> None:
        stream = filesystem.open_output_stream(path, buffer_size=0)
        stream.write(content)
        stream.close()

    with ThreadPoolExecutor(1, "upload") as thread:
        thread.submit(upload).result()


def read_pieces(filesystem: pafs.FileSystem, path: str) -> Iterator[pa.Buffer]:
    """Yield the content of an object in order, in pieces of `PIECE_BYTES`, of which some are read at the same time. (A
    plain `read()` of pyarrow's stream asks for 256 KiB at a time.)

    Raises:
        FileNotFoundError: there is none.
    """
    with filesystem.open_input_file(path) as file:
        starts = range(0, file.size(), PIECE_BYTES)
        if len(starts) < 2:
            yield file.read_buffer()
            return
        for first in range(0, len(starts), CONNECTIONS):
            with ThreadPoolExecutor(CONNECTIONS, "download") as threads:
                some = starts[first : first + CONNECTIONS]
                yield from threads.map(lambda start: pa.py_buffer(file.read_at(PIECE_BYTES, start)), some)
