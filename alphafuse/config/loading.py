"""Reads a configuration: YAML and overrides in, a checked `Config` out."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from alphafuse.config.base import Section
from alphafuse.config.bounded_yaml import MOST_BYTES, compose, line_of, load_yaml
from alphafuse.config.messages import explain
from alphafuse.config.root import Config
from alphafuse.errors import ConfigError

SectionType = TypeVar("SectionType", bound=Section)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `key.path=value` overrides (values are YAML).

    Raises:
        ConfigError: the file cannot be read or parsed, or a key or value is wrong.
    """
    file = ConfigFile(path)
    tree = file.tree()
    if "methods" in tree:
        raise ConfigError(
            f"{path} is the grid of a comparison, not of one run: alphafuse compare {shlex.quote(str(path))}"
        )
    for override in overrides:
        apply_override(tree, override)
    return parse_section(Config, tree, lambda keys: file.place(keys, overrides))


class ConfigFile:
    """A YAML file with sections of settings.

    Args:
        path: the file, which is read at once.

    Raises:
        ConfigError: the file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        try:
            with Path(path).open("rb") as file:
                self._content = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error

    def tree(self) -> dict[str, Any]:
        """The plain values of the file.

        Raises:
            ConfigError: the file cannot be parsed.
        """
        tree = load_yaml(self._content, self._path)
        if not isinstance(tree, dict):
            raise ConfigError(f"{self._path}: expected keys and values at the top level, found {type(tree).__name__}")
        return tree

    @cached_property
    def _root(self) -> yaml.Node | None:
        return compose(self._content)

    def place(self, keys: Sequence[str], overrides: Sequence[str]) -> str:
        """Where a setting stands, for messages: ` (FILE, line N)`; empty where overrides have set it, or a part of it,
        and where the file does not name it."""
        for override in overrides:
            given = overridden_keys(override)
            if all(one == other for one, other in zip(given, keys, strict=False)):
                return ""
        line = line_of(self._root, keys)
        return "" if line is None else f" ({self._path}, line {line})"


def read_tree(path: str | Path) -> dict[str, Any]:
    """The plain values of a YAML file.

    Raises:
        ConfigError: the file cannot be read or parsed.
    """
    return ConfigFile(path).tree()


def parse_config(tree: dict[str, Any]) -> Config:
    """Check a tree of plain values and return the configuration.

    Raises:
        ConfigError: naming each wrong key with its path, and the nearest valid key.
    """
    return parse_section(Config, tree)


def parse_section(
    section: type[SectionType], tree: dict[str, Any], place: Callable[[Sequence[str]], str] = lambda keys: ""
) -> SectionType:
    """Check a tree of plain values and return the section that it describes.

    Args:
        place: text on where the setting with these keys stands, for the end of a message.

    Raises:
        ConfigError: naming each wrong key with its path, and the nearest valid key.
    """
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        lines = [explain(item, tree, section) + place([str(key) for key in item["loc"]]) for item in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def overridden_keys(override: str) -> list[str]:
    """The keys of the setting that an override `key.path=value` changes."""
    return override.partition("=")[0].strip().split(".")


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one dotted path of a tree, given as `key.path=value`; missing sections are added.

    Raises:
        ConfigError: the override has another form, or its path leads through a value.
    """
    keys, (_, equals, value) = overridden_keys(override), override.partition("=")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override!r}: expected key.path=value, as in train.learning_rate=1e-3")
    node = tree
    for position, key in enumerate(keys[:-1]):
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override!r}: {'.'.join(keys[: position + 1])} is a value, not a section")
    try:
        parsed = load_yaml(value, override)
    except ConfigError:  # a text, such as the template {title}. {genres}
        parsed = value
    # To YAML, the template {title} is a mapping without a value.
    node[keys[-1]] = value if isinstance(parsed, dict) and None in parsed.values() else parsed
