"""Finds what `prepare` reads, and looks at the first rows before any work begins.

The first rows go through the same conversions as all rows later, so that a column that is missing or ill-typed ends a
run in its first seconds, with the message of `prepare`. Knows nothing of jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from alphafuse.config import DataConfig, SourceConfig
from alphafuse.data.importers.source import Found, Source, find_all_files, find_sources, identified
from alphafuse.data.preparation.catalog import catalog_columns, item_rows
from alphafuse.data.preparation.interactions import interaction_columns, interaction_rows, require_one_time_kind
from alphafuse.data.preparation.splits import SPLIT_COLUMNS, split_rows
from alphafuse.data.preparation.text import TextTemplate
from alphafuse.errors import ConfigError

CHECKED_FILES = 16
"""Number of files of a path that are opened, the first and the last among them."""


@dataclass(frozen=True)
class Sources:
    """The files that the configuration names; `unread` are files beside them that are in no known format."""

    catalog: list[Source]
    interactions: list[Source]
    split: list[Source]
    unread: list[str]


def find_checked(data: DataConfig) -> Sources:
    """Find all sources, identify them, and check their first rows.

    Raises:
        ConfigError: the text template is malformed, or the temporal split has no timestamps to cut by.
        DataError: a source is missing, damaged, lacks columns, or has one of another type.
    """
    catalog, interactions = find_catalog(data), find_interactions(data)
    unread = dict.fromkeys([*catalog.unread, *interactions.unread])
    return Sources(
        identified(catalog.sources), identified(interactions.sources), identified(find_split(data)), list(unread)
    )


def find_catalog(data: DataConfig) -> Found:
    """Find the files of the catalog and check their first rows (see `find_checked`)."""
    config, template = data.catalog, TextTemplate(data.catalog.text)
    found = find_all_files("data.catalog.path", config, data.folder)
    for source, table in _first_rows(found.sources, catalog_columns(config)):
        item_rows(config, template, table, source.uri)
    return found


def find_interactions(data: DataConfig) -> Found:
    """Find the files of the log and check their first rows (see `find_checked`)."""
    config = data.interactions
    if data.split.kind == "temporal" and config.timestamp is None:
        raise ConfigError("data.split.kind: temporal needs data.interactions.timestamp, the column to cut by")
    found = find_all_files("data.interactions.path", config, data.folder)
    kinds = [
        interaction_rows(config, table, source.uri)[-1]
        for source, table in _first_rows(found.sources, interaction_columns(config))
    ]
    require_one_time_kind({kind for kind in kinds if kind}, config.timestamp)
    return found


def find_split(data: DataConfig) -> list[Source]:
    """Find the files that assign users to splits and check their first rows; none where the split needs no file."""
    if data.split.path is None:
        return []
    sources = find_sources("data.split.path", SourceConfig(path=data.split.path), data.folder)
    for source, table in _first_rows(sources, SPLIT_COLUMNS):
        split_rows(table, source.uri)
    return sources


def _first_rows(sources: Sequence[Source], columns: Sequence[str]) -> Iterator[tuple[Source, pa.Table]]:
    """Yield some sources, spread over all, with their first rows."""
    chosen = np.unique(np.linspace(0, len(sources) - 1, min(CHECKED_FILES, len(sources))).astype(int))
    for number in chosen:
        yield sources[number], sources[number].peek(columns)
