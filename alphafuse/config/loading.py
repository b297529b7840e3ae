"""Reads a configuration: YAML and overrides in, a checked `Config` out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from alphafuse.config.bounded_yaml import MOST_BYTES, load_yaml
from alphafuse.config.messages import explain
from alphafuse.config.root import Config
from alphafuse.errors import ConfigError


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `key.path=value` overrides (values are YAML).

    Raises:
        ConfigError: the file cannot be read or parsed, or a key or value is wrong.
    """
    tree = read_tree(path)
    if "methods" in tree:
        raise ConfigError(
            f"{path} is the grid of a comparison, not of one run: alphafuse compare {shlex.quote(str(path))}"
        )
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree)


def read_tree(path: str | Path) -> dict[str, Any]:
    """The plain values of a YAML file.

    Raises:
        ConfigError: the file cannot be read or parsed.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    tree = load_yaml(content, path)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values at the top level, found {type(tree).__name__}")
    return tree


def parse_config(tree: dict[str, Any]) -> Config:
    """Check a tree of plain values and return the configuration.

    Raises:
        ConfigError: naming each wrong key with its path, and the nearest valid key.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(item, tree) for item in error.errors())) from error


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one dotted path of a tree, given as `key.path=value`; missing sections are added.

    Raises:
        ConfigError: the override has another form, or its path leads through a value.
    """
    path, equals, value = override.partition("=")
    keys = path.strip().split(".")
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
