"""Writes a comparison as Markdown, for people, and as CSV, for programs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pandas as pd

from alphafuse.evaluation.comparison.method_comparison import Comparison, Estimate, Row
from alphafuse.evaluation.comparison.significance import CONFIDENCE

LEVEL = 0.05
"""Corrected p-values below this level are marked."""
MARK = "†"
COLUMNS = (
    "method", "metric", "slice", "seen_items", "mean", "std", "difference", "low", "high", "p_value", "p_corrected",
    "seeds", "validation", "epochs", "train_seconds",
)  # fmt: skip
"""Columns of the CSV."""
SLICES_LEGEND = (
    "Items: by the popularity of the target in training; tail: the less popular `evaluate.tail_share` of the catalog, "
    "cold: without any training interaction, held out: those that `data.split.cold_items` kept out of it. Users: "
    "tail: up to `evaluate.tail_user_length` interactions in all. Histories: short: up to `evaluate.short_history` "
    "items."
)


def to_markdown(comparison: Comparison) -> str:
    """The protocol, the table and its legend, the slices, the differences to the reference and the failed runs."""
    parts = ["# Comparison", "\n".join(f"- {name}: {value}" for name, value in _protocol(comparison).items())]
    if any(row.estimates for row in comparison.rows):
        parts += [_means(comparison), _legend(comparison)]
    if comparison.slices:
        parts += [f"## {comparison.metrics[0].upper()} by slice", _slices(comparison), SLICES_LEGEND]
    if _tested(comparison):
        parts += [f"## Differences to {comparison.reference}", _differences(comparison)]
    if comparison.failures:
        reasons = [f"- {name}: {' '.join(reason.split())}" for name, reason in comparison.failures.items()]
        parts += ["## Failed runs", "\n".join(reasons)]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_csv(comparison: Comparison) -> str:
    """One line for each row, metric and slice, with all digits. Cells without a number are empty, as are all of a row
    that has failed. Lines over all queries name no slice. `seen_items` says whether items that the user has seen were
    ranked: "in" or "out".
    """
    lines: list[dict[str, object]] = []
    for row in comparison.rows:
        effort = {"validation": row.validation, "epochs": row.epochs, "train_seconds": row.train_seconds}
        for metric in comparison.metrics:
            estimate = dataclasses.asdict(row.estimates[metric]) if row.estimates else {}
            lines.append({"method": row.name, "metric": metric, **estimate, "seeds": len(row.seeds), **effort})
        for name, means in row.slices.items():
            for metric, mean in means.items():
                lines.append(
                    {"method": row.name, "metric": metric, "slice": name, "mean": mean, "seeds": len(row.seeds)}
                )
    table = pd.DataFrame(lines, columns=COLUMNS)
    return table.assign(seen_items="out" if comparison.exclude_seen else "in").to_csv(index=False)


def _protocol(comparison: Comparison) -> dict[str, str]:
    """The task that all methods were given, as name and value."""
    protocol = comparison.protocol
    if protocol is None:
        return {}
    split = protocol.split
    shares = f" {':'.join(f'{share:g}' for share in split.ratios)}" if split.kind in ("users", "temporal") else ""
    similarities = [
        similarity if len(protocol.rows_by_similarity) == 1 else f"{similarity} ({', '.join(names)})"
        for similarity, names in protocol.rows_by_similarity.items()
    ]
    lines = {
        "split": f"{split.kind}{shares}" + (f", seed {split.seed}" if split.kind == "users" else ""),
        "queries": f"{protocol.queries:,} {protocol.evaluated} targets of {protocol.users:,} users",
        "ranking": f"all {protocol.num_items:,} items, {'without' if comparison.exclude_seen else 'with'} those that "
        "the user has seen before",
        "similarity": "; ".join(similarities),
    }
    if split.cold_items:
        share = f"{split.cold_items:.0%} of the items"
        lines["cold items"] = f"{share} are held out of training, drawn with seed {split.seed}"
    return lines


def _means(comparison: Comparison) -> str:
    validation = f"validation {comparison.monitor.upper()}"
    header = ["method", *(metric.upper() for metric in comparison.metrics), validation, "epochs", "train s", "seeds"]
    best = {metric: comparison.best(metric) for metric in comparison.metrics}
    lines = []
    for row in comparison.rows:
        means = [_mean(row, metric, row.name in best[metric]) for metric in comparison.metrics]
        effort = [_number(row.epochs, ".0f"), _number(row.train_seconds, ".1f")]
        seeds = "–" if row.estimates and not row.seeds else str(len(row.seeds))  # a baseline has none
        lines.append([row.name, *means, _number(row.validation, ".4f"), *effort, seeds])
    return _table(header, lines)


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def _slices(comparison: Comparison) -> str:
    """The first metric of every row in every slice."""
    metric = comparison.metrics[0]
    best = {name: comparison.best(metric, name) for name in comparison.slices}
    lines = [["queries", *(f"{count:,}" for count in comparison.slices.values())]]
    for row in comparison.rows:
        if row.estimates:
            means = ((name, f"{row.slices[name][metric]:.4f}") for name in comparison.slices)
            lines.append([row.name, *(f"**{mean}**" if row.name in best[name] else mean for name, mean in means)])
    return _table(["method", *comparison.slices], lines)


def _mean(row: Row, metric: str, best: bool) -> str:
    if not row.estimates:
        return "failed"
    estimate = row.estimates[metric]
    mean = f"**{estimate.mean:.4f}**" if best else f"{estimate.mean:.4f}"
    std = "" if math.isnan(estimate.std) else f" ± {estimate.std:.4f}"
    return mean + std + (MARK if _is_significant(estimate) else "")


def _differences(comparison: Comparison) -> str:
    header = ["method", *(f"{name} {what}" for name in map(str.upper, comparison.metrics) for what in ("Δ", "p"))]
    lines = []
    for row in _tested(comparison):
        cells = [row.name]
        for metric in comparison.metrics:
            estimate = row.estimates[metric]
            cells += [_with_interval(estimate), _probability(estimate.p_corrected)]
        lines.append(cells)
    return _table(header, lines)


def _with_interval(estimate: Estimate) -> str:
    known = estimate.low is not None and not math.isnan(estimate.low)
    return f"{estimate.difference:+.4f}" + (f" [{estimate.low:+.4f}, {estimate.high:+.4f}]" if known else "")


def _legend(comparison: Comparison) -> str:
    text = (
        "Mean ± standard deviation over the seeds, **best in bold**. Means over the seeds: the validation metric of "
        "the epoch that it chose, and epochs and seconds of training (without validation), of an ensemble those of its "
        "parts together. Popularity ranks all items by their training interactions, recent popularity by those of the "
        "latest tenth of the log, for everybody alike; they are not tested." + _other_seeds(comparison)
    )
    if not _tested(comparison):
        return text
    return (
        f"{text} {MARK}: differs from {comparison.reference} (p < {LEVEL:g}) by a two-sided paired t-test of the "
        "metric of every query with the seeds that both have. Its samples are the users and the seeds, both at once, "
        "so it says what other users and other seeds would change; with one seed, what other "
        "users would. p is corrected, for each metric, for the number of rows tested (Holm); intervals are those of "
        f"{CONFIDENCE:.0%}, not corrected."
    )


def _other_seeds(comparison: Comparison) -> str:
    """Names the rows that lack seeds which others have."""
    everything = {seed for row in comparison.rows for seed in row.seeds}
    rows = [row for row in comparison.rows if row.seeds and set(row.seeds) != everything]
    if not rows:
        return ""
    named = ", ".join(f"{row.name} ({', '.join(map(str, sorted(row.seeds)))})" for row in rows)
    return (
        f" Not over the same seeds as the others: {named}; differences are over those that a row has in common with "
        f"{comparison.reference}."
    )


def _tested(comparison: Comparison) -> list[Row]:
    return [
        row for row in comparison.rows if any(estimate.difference is not None for estimate in row.estimates.values())
    ]


def _is_significant(estimate: Estimate) -> bool:
    return estimate.p_corrected is not None and estimate.p_corrected < LEVEL


def _probability(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned in the plain text, too."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in (header, *lines)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))
