"""Damages of the bytes of a file, as Hypothesis strategies."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

HUGE = (b"9" * 400, b"1e308", b"-9223372036854775809", b"\x00" * 64, b'"' * 7, b"\xff\xfe", b"A" * 100_000)
"""Values that readers stumble over: numbers beyond every type, zeros, quotes, no UTF-8, a long text."""


@dataclass(frozen=True)
class Change:
    """One change of a file; positions are shares of its length, so that it fits files of any size.

    Attributes:
        kind: what is done.
        start, stop: where, from 0 to 1.
        detail: which bit, or which of `HUGE`.
    """

    kind: str
    start: float
    stop: float
    detail: int

    def __call__(self, content: bytes) -> bytes:
        low, high = sorted((int(self.start * len(content)), int(self.stop * len(content))))
        before, inside, behind = content[:low], content[low:high], content[high:]
        if self.kind == "flip a bit" and content:
            place = min(low, len(content) - 1)
            flipped = content[place] ^ 1 << self.detail % 8
            return content[:place] + bytes([flipped]) + content[place + 1 :]
        if self.kind == "truncate":
            return before
        if self.kind == "cut out":
            return before + behind
        if self.kind == "repeat":
            return before + inside * 2 + behind
        if self.kind == "turn round":
            return before + inside[::-1] + behind
        if self.kind == "zeros":
            return before + bytes(len(inside)) + behind
        if self.kind == "insert":
            return before + HUGE[self.detail % len(HUGE)] + content[low:]
        return content


KINDS = ("flip a bit", "truncate", "cut out", "repeat", "turn round", "zeros", "insert")

_shares = st.floats(0, 1, allow_nan=False)
changes = st.builds(Change, st.sampled_from(KINDS), _shares, _shares, st.integers(0, 63))


def applied(all_changes: list[Change], content: bytes) -> bytes:
    """The content after changes, one after the other."""
    for change in all_changes:
        content = change(content)
    return content
