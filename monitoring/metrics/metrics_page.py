"""Writes the list of metrics in `docs/monitoring.md`: `python -m monitoring.metrics.metrics_page`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from monitoring.metrics.definitions import LABELS, PROCESS_METRICS, RUN_METRICS, WORKER_METRICS, Metric

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"
BEGIN, END = "<!-- made by python -m monitoring.metrics.metrics_page -->", "<!-- end -->"


def reference() -> str:
    """Tables of all metrics and labels, in Markdown."""
    parts = ["### Metrics of the run's own process", "", *_table(RUN_METRICS)]
    for stage, metrics in WORKER_METRICS.items():
        parts += ["", f"### Metrics of each worker of the stage {stage}", "", *_table(metrics)]
    parts += ["", "### Metrics of each of these processes", "", *_table(PROCESS_METRICS)]
    parts += ["", "### Labels", "", "| label | values |", "|---|---|"]
    parts += [f"| `{label}` | {values} |" for label, values in LABELS.items()]
    return "\n".join(parts)


def with_reference(page: str) -> str:
    """The page with an up-to-date list between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{rest.split(END)[1]}"


def _table(metrics: Iterable[Metric]) -> list[str]:
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help.replace('|', chr(92) + '|')} |")
    return rows


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text()))
