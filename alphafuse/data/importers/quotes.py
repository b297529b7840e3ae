"""Checks the quotes of a CSV file: a field whose quote is never closed swallows all rows behind it without an error.

Reads bytes, a block at a time, and knows nothing of columns. The rules are those of RFC 4180: a quote at the beginning
of a field opens it, a doubled quote inside is one character, and behind the closing quote the field ends. A quote in
the middle of a field that does not begin with one is a character like any other.
"""

from __future__ import annotations

from collections.abc import Iterable

QUOTE = b'"'
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def open_quote(blocks: Iterable[bytes], delimiter: bytes) -> tuple[int, str] | None:
    """Find the first quoted field that does not end as it should.

    Args:
        blocks: content of the file.
        delimiter: one byte.

    Returns:
        Line of the opening quote, from 1, and what is wrong; None where all quotes are closed.
    """
    scanner = _Scanner(delimiter + b"\r\n")
    for block in blocks:
        if wrong := scanner.scan(block, is_last=False):
            return wrong
    return scanner.scan(b"", is_last=True)


class _Scanner:
    """State between two blocks: inside of a quoted field or not, and the line."""

    def __init__(self, ends: bytes) -> None:
        self._ends = ends
        self._rest = b""  # the last byte of the block before: the byte behind a quote decides
        self._before = b"\n"  # the byte in front of `_rest`: a file begins as a field does
        self._is_first = True
        self._inside = False
        self._line = 1
        self._opened = 0

    def scan(self, block: bytes, is_last: bool) -> tuple[int, str] | None:
        """Line and reason of the first quote that does not close, as far as the block shows it."""
        data = self._rest + block
        if self._is_first:
            if len(data) < len(BYTE_ORDER_MARK) and not is_last:
                self._rest = data
                return None
            data = data.removeprefix(BYTE_ORDER_MARK)
            self._is_first = False
        limit = len(data) if is_last else len(data) - 1
        position = counted = 0
        while 0 <= (quote := data.find(QUOTE, position)) < limit:
            behind = data[quote + 1 : quote + 2]
            position = quote + 1
            if not self._inside:
                before = data[quote - 1 : quote] if quote else self._before
                if before in self._ends:
                    self._line += data.count(b"\n", counted, quote)
                    counted, self._opened, self._inside = quote, self._line, True
            elif behind == QUOTE:
                position = quote + 2
            elif not behind or behind in self._ends:
                self._inside = False
            else:
                return self._opened, "its closing quote is followed by more text"
        position = max(position, limit)
        self._line += data.count(b"\n", counted, position)
        if is_last:
            return (self._opened, "it is never closed") if self._inside else None
        self._before = data[position - 1 : position] if position else self._before
        self._rest = data[position:]
        return None
