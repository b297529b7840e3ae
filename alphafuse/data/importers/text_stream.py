"""Opens a text file as a stream of UTF-8 bytes: unpacked, decoded, without a byte-order mark, ending with a line end.

Files that are no text of the given encoding are refused with the line. Knows nothing of fields and columns.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

import pyarrow as pa

from alphafuse.errors import DataError
from alphafuse.storage.filesystem.folder import open_filesystem

BLOCK_BYTES = 8 * 2**20
"""Bytes of a block of text, and most bytes of one line."""
_PACKED = {
    b"\x1f\x8b": "is packed by gzip: let its name end in .gz",
    b"PK\x03\x04": "is a ZIP archive (or an Excel file): unpack it, or export it as CSV",
    b"\x28\xb5\x2f\xfd": "is packed by Zstandard: let its name end in .zst",
    b"BZh": "is packed by bzip2: let its name end in .bz2",
    b"\xfd7zXZ": "is packed by xz: unpack it",
    b"PAR1": "is a Parquet file: let its name end in .parquet, or set `format: parquet` beside `path`",
}
"""First bytes of files that are no text, and what to do."""
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def text_blocks(uri: str, encoding: str | None) -> Iterator[bytes]:
    """Yield the text of a file as UTF-8, in blocks of `BLOCK_BYTES`. The last block ends with a line end.

    UTF-8 itself is not checked here: readers do, which decode it anyway.

    Args:
        encoding: name of a codec of Python; None: UTF-8.

    Raises:
        DataError: the file is packed, holds NUL bytes, or bytes that the encoding does not have.
    """
    filesystem, path = open_filesystem(uri)
    with filesystem.open_input_stream(path) as stream:
        blocks: Iterable[bytes] = iter(lambda: stream.read(BLOCK_BYTES), b"")
        blocks = _require_text(uri, blocks, encoding)
        if encoding is not None and not is_utf8(encoding):
            blocks = _of_one_size(_decoded(uri, blocks, encoding))
        yield from _complete(uri, blocks)


def is_utf8(encoding: str | None) -> bool:
    """Tell whether a text of this encoding needs no decoding."""
    return encoding is None or codecs.lookup(encoding).name == "utf-8"


class BlockFile:
    """A file-like object for pyarrow that reads blocks one after the other; a read gives at most one of them."""

    closed = False

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._left = b""

    def read(self, size: int = -1) -> bytes:
        block = self._left or next(self._blocks, b"")
        if 0 <= size < len(block):
            block, self._left = block[:size], block[size:]
        else:
            self._left = b""
        return block

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Does nothing: the blocks close their file when they end."""


def as_stream(blocks: Iterator[bytes]) -> pa.NativeFile:
    """A stream for pyarrow's readers, which pass on the errors of the blocks as they are."""
    return pa.PythonFile(BlockFile(blocks), mode="r")


def lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a text without their ends."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _require_text(uri: str, blocks: Iterable[bytes], encoding: str | None) -> Iterator[bytes]:
    is_first = True
    for block in blocks:
        if is_first:
            is_first = False
            for beginning, advice in _PACKED.items():
                if block.startswith(beginning):
                    raise DataError(f"{uri} {advice}")
            if is_utf8(encoding) and block.startswith(UTF16_MARKS):
                raise DataError(
                    f"{uri} is text in UTF-16: set `encoding: utf-16` beside `path` of the catalog or the log, "
                    f"or write the file as UTF-8"
                )
            if is_utf8(encoding):
                block = block.removeprefix(codecs.BOM_UTF8)
        yield block


def _decoded(uri: str, blocks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    line, is_first = 1, True
    for block, is_last in _with_last(blocks):
        try:
            text = decoder.decode(block, is_last)
        except UnicodeDecodeError as error:
            line += error.object[: error.start].count(b"\n")
            wrong = bytes(error.object[error.start : error.start + 8])
            raise DataError(
                f"{uri}, near line {line}: the bytes {wrong!r} are no {encoding}: {error.reason}. Is `encoding` "
                f"right, and the file complete?"
            ) from error
        if is_first:
            text = text.removeprefix("\ufeff")
            is_first = not text
        line += text.count("\n")
        yield text.encode()


def _with_last(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    for block in blocks:
        yield block, False
    yield b"", True


def _of_one_size(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of `BLOCK_BYTES`: a reader of tables needs a whole line in each."""
    waiting = bytearray()
    for block in blocks:
        waiting += block
        while len(waiting) >= BLOCK_BYTES:
            yield bytes(waiting[:BLOCK_BYTES])
            del waiting[:BLOCK_BYTES]
    if waiting:
        yield bytes(waiting)


def _complete(uri: str, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks, with a line end behind the last line; refuses NUL bytes."""
    before, waiting = 0, b""
    for block in blocks:
        if b"\0" in block:
            place = before + block.index(b"\0")
            raise DataError(
                f"{uri}: holds a NUL byte (at byte {place:,}), which no text has. Is the file damaged, "
                "or in UTF-16 (set `encoding: utf-16` beside `path` of the catalog or the log)?"
            )
        before += len(block)
        if waiting:
            yield waiting
        waiting = block
    if waiting:
        yield waiting if waiting.endswith((b"\r", b"\n")) else waiting + b"\n"
