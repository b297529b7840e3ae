"""Explains errors of a configuration in terms of its file: the path of the wrong key, and the nearest valid key."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable
from typing import Any

from alphafuse.config.base import Section
from alphafuse.config.removed import replacement
from alphafuse.config.root import Config


def explain(error: Any, root: type[Section] = Config) -> str:
    """One line on a pydantic error about a tree of `root`: the path, the error and the remedy."""
    keys = [str(part) for part in error["loc"]]
    path, section = _locate(keys, root)
    if error["type"] == "extra_forbidden":
        return f"{path}: {replacement(path) or f'unknown key; {_nearest(path, section, root)}'}"
    if error["type"] == "missing":
        return f"{path}: this key is required"
    if error["type"] == "model_type":
        return f"{path}: this is a section with keys of its own, not a value (found {error['input']!r})"
    if error["type"] == "value_error":
        return f"{path or 'configuration'}: {error['ctx']['error']}"
    if error["type"] == "union_tag_invalid":
        return f"{path}.name: must be one of {error['ctx']['expected_tags']} (found {error['ctx']['tag']!r})"
    return f"{path}: {error['msg'][:1].lower()}{error['msg'][1:]} (found {error['input']!r})"


def dotted_keys(section: type[Section], prefix: str = "") -> list[str]:
    """Dotted paths of all keys of a tree of sections."""
    paths = []
    for name, field in section.model_fields.items():
        paths.append(prefix + name)
        for inner in _sections(field.annotation):
            paths += dotted_keys(inner, f"{prefix}{name}.")
    return paths


def _locate(keys: list[str], root: type[Section]) -> tuple[str, type[Section]]:
    """The path as a user writes it, and the section of its last key. Pydantic adds the `name` of a chosen section to
    paths, which is removed here."""
    options, holder = [root], root
    path = []
    for key in keys:
        named = [option for option in options if _name_of(option) == key]
        if named and len(options) > 1:
            options = named
            continue
        if options:
            holder = options[0]
        field = holder.model_fields.get(key) if options else None
        options = _sections(field.annotation) if field else []
        path.append(key)
    return ".".join(path), holder


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


def _sections(annotation: Any) -> list[type[Section]]:
    """The sections in the annotation of a field."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in typing.get_args(annotation) for section in _sections(part)]


def _name_of(section: type[Section]) -> str | None:
    """The `name` that chooses this section."""
    return str(section.model_fields["name"].default) if "name" in section.model_fields else None
