"""Counts the records of a delimited text and checks its quotes, a block of bytes at a time.

A field whose quote is never closed swallows all rows behind it without an error, so that a reader needs both. The rules
are those of RFC 4180: a quote at the beginning of a field opens it, a doubled quote inside is one character, and behind
the closing quote the field ends. A quote in the middle of a field that does not begin with one is a character like any
other. Knows nothing of columns.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import numpy as np

QUOTE, LINE_FEED, CARRIAGE_RETURN = b'"\n\r'
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def open_quote(blocks: Iterable[bytes], delimiter: bytes) -> tuple[int, str] | None:
    """Find the first quoted field that does not end as it should.

    Args:
        blocks: content of the file.
        delimiter: one byte.

    Returns:
        Line of the opening quote, from 1, and what is wrong; None where all quotes are closed.
    """
    records = RecordCounter(delimiter)
    for block in blocks:
        if wrong := records.add(block):
            return wrong
    return records.end()


class RecordCounter:
    """State between two blocks. Whole lines are counted: what follows the last line end waits for the next block.

    Args:
        delimiter: one byte.
        is_quoted: False: a quote is a character like any other.

    Attributes:
        count: records up to now, the header among them; lines without any character are none.
    """

    def __init__(self, delimiter: bytes, is_quoted: bool = True) -> None:
        self.count = 0
        self._is_quoted = is_quoted
        self._begins_field = np.zeros(256, bool)  # bytes behind which a field begins
        self._begins_field[list(delimiter + b"\r\n")] = True
        self._rest = b""
        self._is_first = True
        self._line = 1
        self._opened = 0  # line of the quote that is open; 0: none is

    def add(self, block: bytes) -> tuple[int, str] | None:
        """Count a block; returns line and reason of the first quote that does not close, as `open_quote` does."""
        data = self._rest + block if self._rest else block
        last = data.rfind(b"\n")
        end = (data.rfind(b"\r") if last < 0 else last) + 1
        self._rest = data[end:]
        return self._count(np.frombuffer(data, np.uint8)[:end])

    def end(self) -> tuple[int, str] | None:
        """Count what is left behind the last line end; returns what `add` returns."""
        wrong = self._count(np.frombuffer(self._rest, np.uint8))
        return wrong or ((self._opened, "it is never closed") if self._opened else None)

    def _count(self, text: np.ndarray) -> tuple[int, str] | None:
        if self._is_first and len(text):
            self._is_first = False
            if text[:3].tobytes() == BYTE_ORDER_MARK:
                text = text[3:]
        feeds = np.flatnonzero(text == LINE_FEED)
        begins = self._begins_of_lines(text, feeds)
        quotes = np.flatnonzero(text == QUOTE) if self._is_quoted else feeds[:0]
        was_open = bool(self._opened)
        if len(quotes) or was_open:
            first = _first_irregular(text, quotes, was_open, self._begins_field)
            later, wrong = self._by_rules(text, quotes[first:], was_open ^ bool(first % 2))
            bounds = np.concatenate([quotes[:first], later])  # a field opens and closes in turns
            if wrong:
                return self._line_of_opening(bounds, feeds), "its closing quote is followed by more text"
            begins = begins[(np.searchsorted(bounds, begins) + was_open) % 2 == 0]
            is_open = bool((len(bounds) + was_open) % 2)
            self._opened = self._line_of_opening(bounds, feeds) if is_open else 0
        self.count += len(begins)
        self._line += len(feeds)
        return None

    def _begins_of_lines(self, text: np.ndarray, feeds: np.ndarray) -> np.ndarray:
        """Positions at which lines begin that are not empty; the byte before a block is always a line end."""
        returns = text == CARRIAGE_RETURN
        ends = np.flatnonzero((text == LINE_FEED) | returns) if returns.any() else feeds
        begins = np.concatenate([[0], ends + 1])
        begins = begins[begins < len(text)]
        first = text[begins]
        return begins[(first != LINE_FEED) & (first != CARRIAGE_RETURN)]

    def _line_of_opening(self, bounds: np.ndarray, feeds: np.ndarray) -> int:
        """Line of the quote that opened the field in which a block ends."""
        last = len(bounds) - 1
        while last > 0 and bounds[last] == bounds[last - 1] + 1:  # a doubled quote inside of the field
            last -= 2
        return self._line + int(np.searchsorted(feeds, bounds[last])) if last >= 0 else self._opened

    def _by_rules(self, text: np.ndarray, quotes: np.ndarray, is_open: bool) -> tuple[np.ndarray, bool]:
        """Positions of the quotes that open or close a field, in turns; True if the one that should be next to close is
        followed by text."""
        opening = quotes[(quotes == 0) | self._begins_field[text[quotes - 1]]].tolist()
        places, next_opening = quotes.tolist(), 0
        bounds: list[int] = []
        position = -1  # of the last quote that has been looked at
        while True:
            if not is_open:
                next_opening = bisect_right(opening, position, next_opening)
                if next_opening == len(opening):
                    return np.array(bounds, np.int64), False
                position = opening[next_opening]
                bounds.append(position)
                is_open = True
            number = bisect_right(places, position)
            if number == len(places):
                return np.array(bounds, np.int64), False
            position = places[number]
            behind = int(text[position + 1]) if position + 1 < len(text) else LINE_FEED
            if behind == QUOTE:
                position += 1
            elif self._begins_field[behind]:
                bounds.append(position)
                is_open = False
            else:
                return np.array(bounds, np.int64), True


def _first_irregular(text: np.ndarray, quotes: np.ndarray, is_open: bool, begins_field: np.ndarray) -> int:
    """Number of the quotes, from the first on, that open and close fields in turns as they should.

    Of such quotes, one that opens stands at the beginning of a field, or behind a quote: then the two are a doubled
    one, and the field goes on. One that closes stands at the end of a field, or before a quote.
    """
    is_regular = begins_field.copy()
    is_regular[QUOTE] = True
    opening, closing = quotes[int(is_open) :: 2], quotes[1 - int(is_open) :: 2]
    wrong = np.ones(len(quotes), bool)
    wrong[int(is_open) :: 2] = ~(is_regular[text[opening - 1]] | (opening == 0))
    wrong[1 - int(is_open) :: 2] = ~(is_regular[text[np.minimum(closing + 1, len(text) - 1)]])
    if len(quotes) and quotes[-1] + 1 == len(text):  # the end of the file
        wrong[-1] &= (len(quotes) - 1 + is_open) % 2 == 0
    return int(np.argmax(wrong)) if wrong.any() else len(quotes)
