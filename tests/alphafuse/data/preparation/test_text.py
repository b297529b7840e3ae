"""Templates over columns."""

from __future__ import annotations

import pyarrow as pa
import pytest

from alphafuse.data.preparation.text import TextTemplate
from alphafuse.errors import ConfigError

TABLE = pa.table(
    {
        "title": ["Heat", " Toy \t Story\n", None, "  "],
        "year": [1995, None, 2001, None],
        "genres": [["A", "B"], [], None, None],
    }
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{title}", ["Heat", "Toy Story", "", ""]),
        ("{title} ({year}). {genres}", ["Heat (1995). A, B", "Toy Story ().", "(2001).", ""]),
        ("{{{title}}}", ["{Heat}", "{ Toy Story }", "", ""]),
        ("{title}{title} {{x}}", ["HeatHeat {x}", "Toy Story Toy Story {x}", "", ""]),
    ],
)
def test_render(template: str, expected: list[str]) -> None:
    assert TextTemplate(template).render(TABLE, "file").to_pylist() == expected


def test_columns_are_named_once() -> None:
    assert TextTemplate("{a} {b} {a}").columns == ["a", "b"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no column", "names no column"),
        ("{title", "is not a template"),
        ("{}", "names of columns in braces, nothing else"),
        ("{year:>5}", "nothing else"),
        ("{title!r}", "nothing else"),
    ],
)
def test_malformed_templates_are_refused(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TextTemplate(template)
