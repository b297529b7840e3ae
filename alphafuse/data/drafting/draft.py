"""Drafts a configuration from two files: looks at their first rows, guesses what the columns are, and writes YAML.

Texts of files are hostile: names of columns are escaped wherever they are written.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from alphafuse.config import SourceConfig
from alphafuse.data.drafting.dialects import Reading, guess_reading
from alphafuse.data.drafting.roles import Guess, Table, guess_items, guess_texts, guess_time, guess_user
from alphafuse.data.importers.huggingface import PREFIX
from alphafuse.data.importers.source import PEEKED_ROWS, Source, find_sources
from alphafuse.errors import DataError
from alphafuse.storage.filesystem.folder import open_filesystem, resolve

MODEL_WIDTH = 128
"""Width of the model by default; a catalog needs as many items."""


@dataclass(frozen=True)
class Choices:
    """Choices of the caller; None is guessed. The names are those of the options of `alphafuse init`."""

    item_id: str | None = None
    title: str | None = None
    text: str | None = None
    user_id: str | None = None
    log_item_id: str | None = None
    timestamp: str | None = None
    item_columns: Sequence[str] | None = None
    log_columns: Sequence[str] | None = None


@dataclass(frozen=True)
class Setting:
    """A line of the draft.

    Attributes:
        value: plain value; None leaves the line out, unless it says something: `timestamp: null`.
        reason: why, for the comment; empty: no comment.
        option: the option that chooses another value.
        others: values that could have been meant.
    """

    key: str
    value: Any
    reason: str = ""
    option: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A configuration to begin with.

    Attributes:
        workspace: folder of the run.
        sections: settings of the sections of the configuration, by dotted key.
    """

    workspace: str
    sections: Mapping[str, Sequence[Setting]]

    def yaml(self) -> str:
        """The configuration as commented YAML."""
        return "\n".join(self._lines()) + "\n"

    def notes(self) -> Iterator[str]:
        """One line on each guess, with the option that overrules it where others could have been meant."""
        for section, settings in self.sections.items():
            for setting in settings:
                if setting.reason:
                    line = f"{section}.{setting.key}: {setting.value!r} ({setting.reason})"
                    if setting.others:
                        line += f"; or {', '.join(map(repr, setting.others))}? Choose by {setting.option}"
                    yield line

    def _lines(self) -> Iterator[str]:
        yield "# Written by `alphafuse init` from the first rows of two files: look through it, then"
        yield "#   alphafuse config validate THIS_FILE"
        yield "#   alphafuse run THIS_FILE"
        yield "# Every setting, its default and its meaning: docs/settings.md, or alphafuse config show THIS_FILE"
        yield f"workspace: {_value(self.workspace)}  # everything that the run writes"
        written: set[str] = set()
        for section, settings in self.sections.items():
            parts = section.split(".")
            for depth in range(len(parts)):
                if (name := ".".join(parts[: depth + 1])) not in written:
                    written.add(name)
                    yield f"{'  ' * depth}{parts[depth]}:"
            for setting in settings:
                comment = f"  # {setting.reason}" if setting.reason else ""
                yield f"{'  ' * len(parts)}{setting.key}: {_value(setting.value)}{comment}"


def draft_configuration(items: str, log: str, workspace: str, choices: Choices) -> Draft:
    """Draft a configuration for a catalog and a log.

    Args:
        items, log: paths as for `data.catalog.path` and `data.interactions.path`, from the current folder.

    Raises:
        DataError: a file cannot be read, or a column that is needed cannot be guessed.
    """
    catalog_reading, catalog, item_sources = _look("ITEMS", items, choices.item_columns)
    log_reading, interactions, _ = _look("LOG", log, choices.log_columns)
    own, other = guess_items(catalog, interactions, choices.item_id, choices.log_item_id)
    user = guess_user(interactions, other.column, choices.user_id)
    time = guess_time(interactions, (other.column, user.column), choices.timestamp)
    if time is None and choices.timestamp is not None:
        raise DataError(f"{interactions.where}: column {choices.timestamp!r} holds no times")
    folder, (item_path, log_path) = _common_folder([items, log])
    when = (
        Setting("timestamp", None, "no column of times was found: the order of the rows counts", "--timestamp")
        if time is None
        else _column("timestamp", time, "--timestamp")
    )
    return Draft(
        workspace,
        {
            "data": [] if folder is None else [Setting("folder", folder)],
            "data.catalog": [
                Setting("path", item_path),
                *_options(catalog_reading),
                _column("item_id", own, "--item-id"),
                *_texts(catalog, own.column, choices),
            ],
            "data.interactions": [
                Setting("path", log_path),
                *_options(log_reading),
                _column("user_id", user, "--user-id"),
                _column("item_id", other, "--log-item-id"),
                when,
            ],
            "data.split": [
                Setting("kind", "leave_one_out", "a user's last item tests, the one before it validates"),
            ],
            **_small_model(catalog, item_sources),
        },
    )


def _look(name: str, path: str, columns: Sequence[str] | None) -> tuple[Reading, Table, list[Source]]:
    """The way in which a source is read, and its first rows with all columns."""
    reading = guess_reading(_first_file(name, path), columns)
    sources = find_sources(name, SourceConfig(path=path, **reading.options), ".")
    names = sources[0].column_names()
    # A column that is there twice cannot be read, and is no candidate.
    rows = sources[0].peek([column for column in names if names.count(column) == 1])
    if not rows.num_rows:
        raise DataError(f"{sources[0].uri} has no rows to guess from")
    return reading, Table(rows, sources[0].uri), sources


def _first_file(name: str, path: str) -> str:
    """Address of the file that a path names, or of the first of several files."""
    if path.startswith(PREFIX):
        return path
    uri = resolve(path)
    filesystem, inside = open_filesystem(uri)
    if filesystem.get_file_info(inside).is_file:
        return uri
    return find_sources(name, SourceConfig(path=path), ".")[0].uri


def _texts(catalog: Table, item_id: str, choices: Choices) -> list[Setting]:
    title, columns = guess_texts(catalog, item_id, choices.title)
    if choices.text is None and not columns:
        raise DataError(
            f"{catalog.where}: no column is seen to hold texts for the language model; give a template of columns by "
            f'--text, as in --text "{{title}}. {{brand}}". The columns are {", ".join(map(repr, catalog.names))}'
        )
    text = choices.text or ". ".join(f"{{{column}}}" for column in columns)
    reason = "what the language model reads" + ("" if choices.text else ": all columns of words")
    settings = [Setting("text", text, reason)]
    return settings if title is None else [*settings, _column("title", title, "--title")]


def _column(key: str, guess: Guess, option: str) -> Setting:
    return Setting(key, guess.column, guess.reason, option, guess.others)


def _options(reading: Reading) -> list[Setting]:
    return [Setting(key, value, reading.reasons[key]) for key, value in reading.options.items()]


def _small_model(catalog: Table, sources: Sequence[Source]) -> dict[str, list[Setting]]:
    """Settings for a catalog that has fewer items than the model has dimensions by default."""
    count = catalog.rows.num_rows
    if len(sources) > 1 or count >= min(PEEKED_ROWS, 2 * MODEL_WIDTH):
        return {}
    width = max(2, 1 << (count // 2).bit_length() - 1) if count > 1 else 2
    return {
        "model": [Setting("hidden_dim", width, f"a model needs more items than this; the catalog has {count} rows")],
        "decompose": [Setting("null_dim", width // 2, "half of model.hidden_dim")],
    }


def _common_folder(paths: Sequence[str]) -> tuple[str | None, list[str]]:
    """The folder that local paths start from, None where none is local; and the paths from there."""
    local = [resolve(path) for path in paths if "://" not in path]
    if not local:
        return None, list(paths)
    folder = os.path.commonpath([os.path.dirname(path) for path in local])
    return folder, [path if "://" in path else os.path.relpath(resolve(path), folder) for path in paths]


def _value(value: Any) -> str:
    """A plain value as YAML in one line."""
    if not isinstance(value, str):
        return json.dumps(value)
    return yaml.safe_dump(value, default_style='"', allow_unicode=True, width=math.inf).strip()
