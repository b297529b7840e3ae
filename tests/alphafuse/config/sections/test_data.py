"""Settings of sources: what they accept, and that those left out change no fingerprint."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from alphafuse.config import CatalogConfig, SourceConfig

FIRST = {"path", "format", "split", "item_id", "text", "title"}
"""Settings that catalogs had when the first of them were stored."""


def test_settings_that_came_later_are_in_fingerprints_only_where_they_are_set() -> None:
    assert set(CatalogConfig(path="x").result_settings()) == FIRST
    later: dict[str, Any] = {"name": "n", "separator": ";", "encoding": "cp1252", "columns": ["a", "b"]}
    settings = CatalogConfig(path="x", **later).result_settings()
    assert {name: settings[name] for name in set(settings) - FIRST} == later


def test_a_tab_may_be_written_with_a_backslash() -> None:
    assert SourceConfig(path="x", separator="\\t").separator == SourceConfig(path="x", separator="\t").separator == "\t"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoding": "klingon"}, "'klingon' is no encoding of texts; examples: utf-8"),
        ({"encoding": "base64"}, "no encoding of texts"),
        ({"separator": "\n"}, "no line ends and no quotes"),
        ({"separator": ""}, "at least 1 character"),
        ({"columns": []}, "at least 1 item"),
    ],
)
def test_values_that_nothing_can_be_read_with(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SourceConfig(path="x", **settings)
