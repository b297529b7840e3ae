"""Writes the parts of the documentation that follow from the code: `python -m docs.generate`.

These are the settings in `settings.md`, from the sections of the configuration, and the metrics in `monitoring.md`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alphafuse.config.base import Section
from alphafuse.config.grid import GridConfig
from alphafuse.config.registry import OWN_CLASS
from alphafuse.config.root import Config
from alphafuse.config.space import SpaceConfig
from monitoring.metrics.definitions import (
    LABELS,
    PROCESS_METRICS,
    REGISTRY_METRICS,
    RUN_METRICS,
    SERVE_METRICS,
    WORKER_METRICS,
    Metric,
)

FOLDER = Path(__file__).parent
BEGIN, END = "<!-- made by python -m docs.generate -->", "<!-- end -->"

_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false", "null": "null"}


def settings() -> str:
    """A table of settings for every section, in Markdown."""
    roots: dict[str, type[Section]] = {"A run": Config, "A comparison": GridConfig, "A search space": SpaceConfig}
    return "\n".join(line for title, root in roots.items() for line in _sections(root, title))


def metrics() -> str:
    """Tables of all metrics and labels, in Markdown."""
    parts = ["### Metrics of the run's own process", "", *_metrics_table(RUN_METRICS)]
    for stage, of_stage in WORKER_METRICS.items():
        parts += ["", f"### Metrics of each worker of the stage {stage}", "", *_metrics_table(of_stage)]
    parts += ["", "### Metrics of `alphafuse models metrics`", "", *_metrics_table(REGISTRY_METRICS)]
    parts += ["", "### Metrics of the web service", "", *_metrics_table(SERVE_METRICS)]
    parts += ["", "### Metrics of each process of a run", "", *_metrics_table(PROCESS_METRICS)]
    parts += ["", "### Labels", "", "| label | values |", "|---|---|"]
    parts += [f"| `{label}` | {values} |" for label, values in LABELS.items()]
    return "\n".join([*parts, ""])


PAGES: dict[Path, Callable[[], str]] = {FOLDER / "settings.md": settings, FOLDER / "monitoring.md": metrics}
"""Each page with what stands between its marks."""


def generated(page: Path) -> str:
    """The text of a page with what the code says now between its marks."""
    before, rest = page.read_text().split(BEGIN)
    return f"{before}{BEGIN}\n\n{PAGES[page]()}\n{END}{rest.split(END)[1]}"


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
    """The key that chooses a section; empty where there is nothing to choose from."""
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
    return [option for option in named if "properties" in option and option.get("title") != OWN_CLASS]


def _row(key: str, value: Mapping[str, Any], required: bool) -> str:
    default = "**required**" if required else _code(value.get("default", {}))
    meaning = " ".join(value.get("description", "").split())
    return "| " + " | ".join(text.replace("|", r"\|") for text in (f"`{key}`", _kind(value), default, meaning)) + " |"


def _kind(value: Mapping[str, Any]) -> str:
    """The values that a setting takes, in words."""
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


def _metrics_table(metrics: Iterable[Metric]) -> list[str]:
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help.replace('|', chr(92) + '|')} |")
    return rows


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(generated(page))
