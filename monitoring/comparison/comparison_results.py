"""The numbers of a comparison, from the evaluations of its runs: means over seeds, and differences query by query."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from alphafuse.config import Config, GridConfig
from alphafuse.evaluation.ranking_metrics import gains
from alphafuse.evaluation.ranks import read_ranks
from alphafuse.evaluation.significance import holm, paired_p_value
from alphafuse.storage.workspace import Workspace


@dataclass(frozen=True)
class Measured:
    """A finished run: where its evaluation is, and the trainings that it took (those of its parts for an ensemble)."""

    evaluation: Workspace
    trainings: Sequence[Workspace]


@dataclass(frozen=True)
class Estimate:
    """A metric of one row.

    Attributes:
        mean, std: over the seeds; the sample's standard deviation, NaN for a single seed.
        difference: to the reference, over the seeds that both have; None for the reference itself, and for a row that
            shares no seed with it.
        p_value, p_corrected: of the difference; corrected for the number of rows tested.
    """

    mean: float
    std: float
    difference: float | None = None
    p_value: float | None = None
    p_corrected: float | None = None


@dataclass(frozen=True)
class Row:
    """A method or an ensemble; `estimates` by metric, empty where no run has finished; epochs and seconds of training
    are means over the seeds, as are the `slices`, by slice and metric, and `validation`, the value that chose the epoch
    (NaN for an ensemble)."""

    name: str
    seeds: tuple[int, ...]
    estimates: dict[str, Estimate]
    slices: dict[str, dict[str, float]]
    validation: float
    epochs: float
    train_seconds: float


@dataclass(frozen=True)
class Comparison:
    """Everything in the table.

    Attributes:
        protocol: what was asked of all methods, as name and value.
        exclude_seen: whether items that a user has seen before were left out of the ranking.
        monitor: the metric that chose the epochs on the validation split; several where the methods differ in it.
        slices: how many of the queries are in each slice; only those that have any.
        failures: reasons by the name of the run.
    """

    rows: list[Row]
    metrics: tuple[str, ...]
    reference: str
    protocol: dict[str, str]
    exclude_seen: bool
    monitor: str
    slices: dict[str, int]
    failures: dict[str, str]

    def best(self, metric: str, slice_name: str | None = None) -> set[str]:
        """The rows with the largest mean, over all queries or those of a slice; none where all means are zero."""
        means = {
            row.name: row.estimates[metric].mean if slice_name is None else row.slices[slice_name][metric]
            for row in self.rows
            if row.estimates
        }
        return {name for name, mean in means.items() if mean == max(means.values()) and mean > 0}


def require_readable(run: Measured) -> None:
    """Check that all is there and whole that a comparison reads of a run.

    Raises:
        WorkspaceError: something is missing or damaged.
    """
    run.evaluation.artifact("evaluation").verify()
    for training in run.trainings:
        training.artifact("model").require()


def gather(
    grid: GridConfig,
    configs: Mapping[str, Config],
    measured: Mapping[str, Mapping[int, Measured]],
    failures: Mapping[str, str],
) -> Comparison:
    """The comparison of all runs that have finished.

    Holds the metrics of the queries of two rows in memory.

    Args:
        measured: by row and seed, what can be read (`require_readable`); no seeds where all runs of a row have failed.
    """
    finished = {name: seeds for name, seeds in measured.items() if seeds}
    queries = _slice_queries(finished)
    estimates = {name: _estimates(seeds.values(), grid.metrics) for name, seeds in finished.items()}
    if grid.reference in finished:
        _compare(grid, finished, estimates)
    rows = [
        Row(
            name,
            tuple(seeds),
            estimates.get(name, {}),
            _slice_means(list(seeds.values()), queries, grid.metrics),
            _validation(list(seeds.values())),
            *_effort(list(seeds.values())),
        )
        for name, seeds in measured.items()
    ]
    protocol = _protocol(configs, finished) if finished else {}
    monitor = ", ".join(dict.fromkeys(config.train.monitor for config in configs.values()))
    exclude_seen = next(iter(configs.values())).evaluate.exclude_seen
    return Comparison(rows, grid.metrics, grid.reference, protocol, exclude_seen, monitor, queries, dict(failures))


def _estimates(runs: Any, metrics: Sequence[str]) -> dict[str, Estimate]:
    values = [_metrics(run)["overall"] for run in runs]
    result = {}
    for metric in metrics:
        sample = np.array([value[metric] for value in values])
        result[metric] = Estimate(float(sample.mean()), float(sample.std(ddof=1)) if len(sample) > 1 else float("nan"))
    return result


def _slices(run: Measured) -> dict[str, dict[str, Any]]:
    """The metrics of every slice, named like "items: tail"."""
    kinds = _metrics(run)["slices"].items()
    return {f"{kind}: {name.replace('_', ' ')}": values for kind, members in kinds for name, values in members.items()}


def _slice_queries(finished: Mapping[str, Mapping[int, Measured]]) -> dict[str, int]:
    """How many queries each slice has, the same for all runs; without the empty ones."""
    first = next((run for seeds in finished.values() for run in seeds.values()), None)
    return {} if first is None else {name: each["queries"] for name, each in _slices(first).items() if each["queries"]}


def _slice_means(runs: Sequence[Measured], names: Iterable[str], metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    found = [_slices(run) for run in runs]
    if not found:
        return {}
    return {
        name: {metric: float(np.mean([each[name][metric] for each in found])) for metric in metrics} for name in names
    }


def _compare(
    grid: GridConfig, finished: Mapping[str, Mapping[int, Measured]], estimates: dict[str, dict[str, Estimate]]
) -> None:
    """Add differences to the reference and their p-values, over the seeds that both have."""
    reference = finished[grid.reference]
    users = _users(next(iter(reference.values())))
    tested: dict[str, dict[str, tuple[float, float]]] = {metric: {} for metric in grid.metrics}
    for name, runs in finished.items():
        seeds = [seed for seed in runs if seed in reference]
        if name == grid.reference or not seeds:
            continue
        own, expected = (_query_gains([row[seed] for seed in seeds], grid.metrics) for row in (runs, reference))
        for metric in grid.metrics:
            gained = own[metric] - expected[metric]  # [queries]
            tested[metric][name] = float(gained.mean()), paired_p_value(gained, users)
    for metric, by_row in tested.items():
        corrected = holm([p_value for _, p_value in by_row.values()])
        for (name, (difference, p_value)), p_corrected in zip(by_row.items(), corrected, strict=True):
            estimates[name][metric] = dataclasses.replace(
                estimates[name][metric], difference=difference, p_value=p_value, p_corrected=p_corrected
            )


def _query_gains(runs: Sequence[Measured], metrics: Sequence[str]) -> dict[str, np.ndarray]:
    """Of each metric what every query adds to it, averaged over the runs: [queries]."""
    totals: dict[str, Any] = dict.fromkeys(metrics, 0.0)
    for run in runs:
        ranks = read_ranks(run.evaluation.artifact("evaluation"), "rank")["rank"].to_numpy()
        for metric in metrics:
            totals[metric] = totals[metric] + gains(ranks, metric)
    return {metric: total / len(runs) for metric, total in totals.items()}


def _users(run: Measured) -> np.ndarray:
    """The number of each query's user, from 0 on: int64 [queries]."""
    names = read_ranks(run.evaluation.artifact("evaluation"), "user_id")["user_id"]
    return pc.dictionary_encode(names).combine_chunks().indices.to_numpy()


def _validation(runs: Sequence[Measured]) -> float:
    """The best value of the monitored metric, mean over the runs of a method."""
    trainings = [run.trainings for run in runs]
    if not all(len(parts) == 1 for parts in trainings) or not trainings:
        return float("nan")
    return float(np.mean([part.artifact("model").require().details["best"]["value"] for (part,) in trainings]))


def _effort(runs: Sequence[Measured]) -> tuple[float, float]:
    """Epochs and seconds of training (without validation), summed over the parts, means over the runs."""
    histories = [
        [epoch for training in run.trainings for epoch in training.artifact("model").require().details["history"]]
        for run in runs
    ]
    if not histories:
        return float("nan"), float("nan")
    seconds = [sum(epoch["seconds"] for epoch in history) for history in histories]
    return float(np.mean([len(history) for history in histories])), float(np.mean(seconds))


def _protocol(configs: Mapping[str, Config], finished: Mapping[str, Mapping[int, Measured]]) -> dict[str, str]:
    """What was asked of all rows; where they rank by different similarities, which."""
    results = {name: _metrics(next(iter(seeds.values()))) for name, seeds in finished.items()}
    result, split = next(iter(results.values())), next(iter(configs.values())).data.split
    users = _users(next(iter(next(iter(finished.values())).values())))
    shares = f" {':'.join(f'{share:g}' for share in split.ratios)}" if split.kind in ("users", "temporal") else ""
    similarities: dict[str, list[str]] = {}
    for name, measured in results.items():
        similarities.setdefault(measured["similarity"], []).append(name)
    ranked_by = [
        similarity if len(similarities) == 1 else f"{similarity} ({', '.join(names)})"
        for similarity, names in similarities.items()
    ]
    protocol = {
        "split": f"{split.kind}{shares}" + (f", seed {split.seed}" if split.kind == "users" else ""),
        "queries": f"{result['queries']:,} {result['split']} targets of {users.max() + 1:,} users",
        "ranking": f"all {result['num_items']:,} items, "
        + ("without" if result["exclude_seen"] else "with") + " those that the user has seen before",
        "similarity": "; ".join(ranked_by),
    }  # fmt: skip
    if split.cold_items:
        share = f"{split.cold_items:.0%} of the items"
        protocol["cold items"] = f"{share} are held out of training, drawn with seed {split.seed}"
    return protocol


def _metrics(run: Measured) -> dict[str, Any]:
    """The content of `metrics.json`."""
    return json.loads(run.evaluation.artifact("evaluation").read_file("metrics.json"))
