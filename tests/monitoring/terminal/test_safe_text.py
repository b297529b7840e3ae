"""Texts of others act on no terminal, however they are printed."""

from __future__ import annotations

import io
import unicodedata

import pytest
from rich.table import Table

from alphafuse.events import Event, Progress, StageFailed, StageFinished, StageStarted, StageWarning
from monitoring.terminal.run_console import RunConsole
from monitoring.terminal.safe_text import SafeConsole, one_line, printable

HOSTILE = "\x1b]0;owned\x07\x1b[31mHeat\x9b2J\u202egnp.exe\u2066\u200f\x00\x7f\ud800\u2028"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _is_safe(text: str) -> bool:
    """Definition by Unicode: no control character but tab and line feed, no mark of direction, no surrogate."""
    directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return not any(
        (unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") and letter not in "\t\n")
        or unicodedata.bidirectional(letter) in directions
        or letter in "\u061c\u200e\u200f"
        for letter in text
    )


def test_every_character_of_unicode_is_shown_or_replaced() -> None:
    everything = "".join(map(chr, range(0x110000)))
    assert _is_safe(printable(everything))
    kept = set(printable(everything))
    assert all(letter in kept for letter in map(chr, range(0x110000)) if _is_safe(letter) and letter != "\ufeff")
    assert printable("日本語 émoji 👩‍🚀 می‌خواهم\tx\ny") == "日本語 émoji 👩‍🚀 می‌خواهم\tx\ny"
    assert printable("\x1b[1m\r\n\r") == "\\x1b[1m\n\\r"
    assert one_line("a\nb\tc") == "a\\nb\\tc"


@pytest.mark.parametrize("stream", [io.StringIO, _Terminal])
def test_a_console_prints_no_text_raw(stream: type[io.StringIO]) -> None:
    output = stream()
    console = SafeConsole(file=output, force_terminal=False)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    console.print(HOSTILE, soft_wrap=True)
    console.print(table)
    assert output.getvalue().count("Heat") == 4
    assert _is_safe(output.getvalue())


def test_a_run_shows_hostile_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = [
        StageStarted("train", time=0.0),
        Progress("train", 1, 2, HOSTILE, time=100.0),
        StageWarning("train", HOSTILE, time=101.0),
        StageFinished("train", {"examples": HOSTILE}, time=102.0),
        StageStarted(HOSTILE, time=103.0),
        StageFailed(HOSTILE, HOSTILE, time=104.0),
    ]
    plain, terminal = io.StringIO(), _Terminal()
    for output in (plain, terminal):
        with RunConsole(output) as listen:
            for event in events:
                listen(event)
    assert plain.getvalue().count("Heat") == 5
    assert _is_safe(plain.getvalue())
    for act in ("\x1b]0;owned", "\x1b[31mHeat", "\x9b", "\u202e", "\x00"):
        assert act not in terminal.getvalue()
