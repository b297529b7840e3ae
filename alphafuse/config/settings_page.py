"""The list of settings in `docs/settings.md`, made from the sections by `python -m alphafuse.config.settings_page`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alphafuse.config.base import Section
from alphafuse.config.grid import GridConfig
from alphafuse.config.root import Config

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
BEGIN, END = "<!-- made by python -m alphafuse.config.settings_page -->", "<!-- end -->"

_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false", "null": "null"}


def reference() -> str:
    """A table of settings for every section, in Markdown."""
    return "\n".join([*_sections(Config, "A run"), *_sections(GridConfig, "A comparison")])


def with_reference(page: str) -> str:
    """The page with the present settings between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{rest.split(END)[1]}"


def _sections(root: type[Section], title: str) -> Iterator[str]:
    """The tables of a tree of sections, parents first."""
    schema = root.model_json_schema()
    waiting: list[tuple[str, str, Mapping[str, Any]]] = [(f"## {title}", "", schema)]
    while waiting:
        heading, prefix, section = waiting.pop(0)
        rows, inner = [], []
        for key, value in section["properties"].items():
            below = _inner_sections(value, schema["$defs"])
            required = key in section.get("required", ())
            for each in below:
                path = f"{prefix}{key}.NAME" if "additionalProperties" in value else prefix + key
                inner.append((f"### `{path}`{_choice(each, value)}", f"{path}.", each))
            if not ("const" in value or (below and "description" not in value)):
                rows.append(_row(prefix + key, value, required))
        yield from [heading, "", " ".join(section["description"].split()), ""]
        if rows:
            yield from ["| key | value | default | meaning |", "|---|---|---|---|", *rows, ""]
        waiting = inner + waiting


def _choice(section: Mapping[str, Any], value: Mapping[str, Any]) -> str:
    """How a section is chosen, where there are several of which one is."""
    if "oneOf" not in value:
        return ""
    name = section["properties"]["name"]["const"]
    return f", `name: {name}`{' (the default)' if name == value['default']['name'] else ''}"


def _inner_sections(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The sections that a value may be, or that its items or values are."""
    options = [value, *value.get("oneOf", ()), *value.get("anyOf", ())]
    for name in ("items", "additionalProperties"):
        options += [value[name]] if isinstance(value.get(name), dict) else []
    named = [definitions[option["$ref"].rsplit("/", 1)[1]] if "$ref" in option else option for option in options]
    return [option for option in named if "properties" in option]


def _row(key: str, value: Mapping[str, Any], required: bool) -> str:
    default = "**required**" if required else _code(value.get("default", {}))
    meaning = " ".join(value.get("description", "").split())
    return "| " + " | ".join(text.replace("|", r"\|") for text in (f"`{key}`", _kind(value), default, meaning)) + " |"


def _kind(value: Mapping[str, Any]) -> str:
    """What may be given."""
    if "$ref" in value:
        return "section"
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if "anyOf" in value:
        return ", or ".join(_kind(each) for each in value["anyOf"])
    if value["type"] == "array":
        each = value.get("prefixItems", [value.get("items")])[0]
        return f"list of {_kind(each)}"
    if value["type"] == "object":
        return "section"
    limits = " ".join(f"{sign} {value[limit]:g}" for limit, sign in _LIMITS.items() if limit in value)
    return f"{_KINDS[value['type']]} {limits}".strip()


def _code(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text()))
