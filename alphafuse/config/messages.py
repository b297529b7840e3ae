"""Explains errors of a configuration in terms of its file: the path of the wrong key, and the nearest valid key."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from alphafuse.config.base import Section
from alphafuse.config.registry import UNKNOWN_NAME, Registry
from alphafuse.config.removed import replacement
from alphafuse.config.root import Config


def explain(error: Any, tree: object, root: type[Section] = Config) -> str:
    """Return one line on a pydantic error: the path of the key, what is wrong, and what would be right.

    Args:
        error: one of `ValidationError.errors()`.
        tree: the plain values that were checked.
        root: the section that they were checked against.
    """
    keys = [str(part) for part in error["loc"]]
    path, section = ".".join(keys), _holder(keys, tree, root)
    if error["type"] == "extra_forbidden":
        return f"{path}: {replacement(path) or f'unknown key; {_nearest(path, section, root)}'}"
    if error["type"] == "missing":
        return f"{path}: this key is required"
    if error["type"] == "model_type":
        return f"{path}: this is a section with keys of its own, not a value (found {error['input']!r})"
    if error["type"] == "value_error":
        return f"{path or 'configuration'}: {error['ctx']['error']}"
    if error["type"] == UNKNOWN_NAME:
        return f"{path}.name: {error['msg']}"
    return f"{path}: {error['msg'][:1].lower()}{error['msg'][1:]} (found {error['input']!r})"


def dotted_keys(section: type[Section], prefix: str = "") -> list[str]:
    """Dotted paths of all keys of a tree of sections."""
    paths = []
    for name, field in section.model_fields.items():
        paths.append(prefix + name)
        for inner in _sections(field):
            paths += dotted_keys(inner, f"{prefix}{name}.")
    return paths


def _holder(keys: list[str], tree: object, root: type[Section]) -> type[Section]:
    """The section that holds the last of the keys."""
    holder, inner = root, [root]
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
        if inner:
            holder = inner[0]
            field = holder.model_fields.get(key)
            inner = _sections(field, tree) if field else []
    return holder


def _nearest(path: str, section: type[Section], root: type[Section]) -> str:
    """Advice on an unknown key: the most similar key of the same section, or else of the whole tree."""
    parent, _, key = path.rpartition(".")
    near = [f"{parent}.{name}".lstrip(".") for name in _close(key, section.model_fields)]
    if not near:  # keys often stand in the wrong section
        paths = {known.rsplit(".", 1)[-1]: known for known in dotted_keys(root)}
        near = [paths[name] for name in _close(key, paths) if paths[name] != path]
    return f"did you mean {near[0]!r}?" if near else f"valid keys here: {', '.join(section.model_fields)}"


def _close(key: str, known: Iterable[str]) -> list[str]:
    """The known key most similar to `key`, if any: by spelling, or by the initials of its words (lr, learning_rate)."""
    known = list(known)
    initials = [name for name in known if "".join(word[0] for word in name.split("_")) == key]
    return initials[:1] or difflib.get_close_matches(key, known, n=1, cutoff=0.6)


def _sections(field: FieldInfo, tree: object = None) -> list[type[Section]]:
    """The sections that a field may hold; where a name chooses among them, the one that `tree` chooses comes first."""
    for registry in field.metadata:
        if isinstance(registry, Registry):
            chosen = registry.settings_class(tree)
            return [*([chosen] if chosen else []), *registry.built_in_settings()]
    return _sections_in(field.annotation)


def _sections_in(annotation: Any) -> list[type[Section]]:
    """The sections in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for inner in typing.get_args(annotation) for section in _sections_in(inner)]
