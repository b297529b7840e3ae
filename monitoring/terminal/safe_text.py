"""Makes texts safe to show on a terminal, and prints them.

Titles of a catalog, messages with a value of a file, names of files and logs of jobs are written by others. Raw, their
control characters would act on the terminal: recolour or erase what it shows, change its title, write into the
clipboard, or turn the order of letters around. All output of the commands passes here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# C0 and C1 without tabs and ends of lines; separators that some terminals take for ends of lines; marks that change the
# direction of writing (bidirectional overrides, embeddings and isolates); surrogates, which no stream can encode.
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with control characters in the way that Python writes them (`\\x1b`); tabs and ends of lines stay."""
    return _HARMFUL.sub(lambda match: _escaped(match[0]), text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """As `printable`, for a part of a line, such as a title: tabs and ends of lines are replaced, too."""
    return re.sub("[\t\n]", lambda match: _escaped(match[0]), printable(text))


def echo(text: str, colour: str | None = None, err: bool = False, nl: bool = True) -> None:
    """Print a text to standard output or error."""
    typer.secho(printable(text), fg=colour, err=err, nl=nl)


class SafeConsole(Console):
    """A `rich` console that prints `printable` texts; the control characters of `rich` itself stay."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Strings, also those in tables: replaced before their width is measured."""
        return super().render_str(printable(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Everything else: labels of progress bars, texts with styles."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
