"""Compares methods by the evaluations of their finished runs: means over seeds, and differences query by query.

Knows nothing of how a comparison is printed or drawn.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from alphafuse.config import Config, GridConfig
from alphafuse.config.sections.data import SplitConfig
from alphafuse.evaluation.comparison.significance import PairedTest, holm, paired_test
from alphafuse.evaluation.ranking_metrics import gains
from alphafuse.evaluation.ranks import read_ranks
from alphafuse.storage.workspace import Workspace


@dataclass(frozen=True)
class FinishedRun:
    """Places of the results of a run.

    Attributes:
        evaluation: the workspace that holds the evaluation.
        trainings: the workspaces of the models that were evaluated; several for an ensemble.
    """

    evaluation: Workspace
    trainings: Sequence[Workspace]

    def require_readable(self) -> None:
        """Check that everything a comparison reads is there and whole.

        Raises:
            WorkspaceError: something is missing or damaged.
        """
        self.evaluation.artifact("evaluation").verify()
        for training in self.trainings:
            training.artifact("model").require()

    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        return json.loads(self.evaluation.artifact("evaluation").read_file("metrics.json"))

    def ranks(self) -> np.ndarray:
        """The rank of each query's target: int64 [queries]."""
        return read_ranks(self.evaluation.artifact("evaluation"), "rank")["rank"].to_numpy()

    def users(self) -> np.ndarray:
        """The number of each query's user, from 0 on: int64 [queries]."""
        names = read_ranks(self.evaluation.artifact("evaluation"), "user_id")["user_id"]
        return pc.dictionary_encode(names).combine_chunks().indices.to_numpy()


@dataclass(frozen=True)
class Estimate:
    """One metric of one row.

    Attributes:
        mean, std: over the seeds; the sample's standard deviation, NaN for a single seed.
        difference: to the reference, over the seeds that both have; None for the reference itself, and for a row that
            shares no seed with it.
        low, high: ends of the confidence interval of the difference (`paired_test`).
        p_value, p_corrected: of the difference; corrected for the number of rows tested.
    """

    mean: float
    std: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_corrected: float | None = None


@dataclass(frozen=True)
class Row:
    """A method, an ensemble, or a baseline that needs no training and has no seeds.

    Attributes:
        estimates: by metric; empty where no run has finished.
        slices: means over the seeds, by slice and metric.
        validation: the value that chose the epoch, mean over the seeds; NaN for an ensemble and a baseline.
        epochs, train_seconds: of training, means over the seeds; NaN for a baseline.
    """

    name: str
    seeds: tuple[int, ...]
    estimates: dict[str, Estimate]
    slices: dict[str, dict[str, float]]
    validation: float
    epochs: float
    train_seconds: float


@dataclass(frozen=True)
class Protocol:
    """The task that all methods were given.

    Attributes:
        split: how the log was split.
        evaluated: name of the split whose targets were ranked.
        rows_by_similarity: names of the rows, by the similarity that they rank by.
    """

    split: SplitConfig
    evaluated: str
    queries: int
    users: int
    num_items: int
    rows_by_similarity: dict[str, list[str]]


@dataclass(frozen=True)
class Comparison:
    """Rows with their numbers, and what the numbers mean.

    Attributes:
        protocol: None where no run has finished.
        exclude_seen: whether items that a user has seen before were left out of the ranking.
        monitor: the metric that chose the epochs on the validation split; several where the methods differ in it.
        slices: number of queries in each slice that has any.
        failures: reasons by the name of the run.
    """

    rows: list[Row]
    metrics: tuple[str, ...]
    reference: str
    protocol: Protocol | None
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


def compare_methods(
    grid: GridConfig,
    configs: Mapping[str, Config],
    runs: Mapping[str, Mapping[int, FinishedRun]],
    failures: Mapping[str, str],
) -> Comparison:
    """Compare all runs that have finished.

    Holds the metrics of the queries of all runs of two rows in memory.

    Args:
        configs: by method.
        runs: by row and seed, what can be read (`FinishedRun.require_readable`); no seeds where all runs of a row have
            failed.
        failures: reasons by the name of the run.
    """
    finished = {name: seeds for name, seeds in runs.items() if seeds}
    config = next(iter(configs.values()))  # all methods are evaluated alike
    queries = _slice_queries(finished)
    estimates = {name: _estimates(seeds.values(), grid.metrics) for name, seeds in finished.items()}
    if grid.reference in finished:
        _add_differences(grid, finished, estimates)
    rows = [
        Row(
            name,
            tuple(seeds),
            estimates.get(name, {}),
            _slice_means(list(seeds.values()), queries, grid.metrics),
            _validation(list(seeds.values())),
            *_effort(list(seeds.values())),
        )
        for name, seeds in runs.items()
    ]
    if finished:
        rows += _baselines(next(iter(next(iter(finished.values())).values())), queries, grid)
    return Comparison(
        rows=rows,
        metrics=grid.metrics,
        reference=grid.reference,
        protocol=_protocol(config.data.split, finished) if finished else None,
        exclude_seen=config.evaluate.exclude_seen,
        monitor=", ".join(dict.fromkeys(each.train.monitor for each in configs.values())),
        slices=queries,
        failures=dict(failures),
    )


def _estimates(runs: Iterable[FinishedRun], metrics: Sequence[str]) -> dict[str, Estimate]:
    values = [run.metrics()["overall"] for run in runs]
    result = {}
    for metric in metrics:
        sample = np.array([value[metric] for value in values])
        result[metric] = Estimate(float(sample.mean()), float(sample.std(ddof=1)) if len(sample) > 1 else float("nan"))
    return result


def _baselines(run: FinishedRun, queries: Iterable[str], grid: GridConfig) -> list[Row]:
    """Rows of what needs no training, such as popularity: the same in every run, and without seeds."""
    found = run.metrics().get("baselines", {})  # evaluations of before have none
    rows = []
    for name, result in found.items():
        shown = name.replace("_", " ")
        if shown not in (row.lower() for row in grid.rows):
            estimates = {metric: Estimate(result["overall"][metric], float("nan")) for metric in grid.metrics}
            by_name = _slices(result)
            slices = {each: {metric: by_name[each][metric] for metric in grid.metrics} for each in queries}
            rows.append(Row(shown, (), estimates, slices, float("nan"), float("nan"), float("nan")))
    return rows


def _slices(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The metrics of every slice of an evaluation, named like "items: tail"."""
    kinds = result["slices"].items()
    return {f"{kind}: {name.replace('_', ' ')}": values for kind, members in kinds for name, values in members.items()}


def _slice_queries(finished: Mapping[str, Mapping[int, FinishedRun]]) -> dict[str, int]:
    """The number of queries in each slice that has any, the same for all runs."""
    first = next((run for seeds in finished.values() for run in seeds.values()), None)
    if first is None:
        return {}
    return {name: each["queries"] for name, each in _slices(first.metrics()).items() if each["queries"]}


def _slice_means(
    runs: Sequence[FinishedRun], names: Iterable[str], metrics: Sequence[str]
) -> dict[str, dict[str, float]]:
    found = [_slices(run.metrics()) for run in runs]
    if not found:
        return {}
    return {
        name: {metric: float(np.mean([each[name][metric] for each in found])) for metric in metrics} for name in names
    }


def _add_differences(
    grid: GridConfig, finished: Mapping[str, Mapping[int, FinishedRun]], estimates: dict[str, dict[str, Estimate]]
) -> None:
    """Add differences to the reference, their intervals and p-values, over the seeds that both have."""
    reference = finished[grid.reference]
    users = next(iter(reference.values())).users()
    tested: dict[str, dict[str, PairedTest]] = {metric: {} for metric in grid.metrics}
    for name, runs in finished.items():
        seeds = [seed for seed in runs if seed in reference]
        if name == grid.reference or not seeds:
            continue
        own, expected = (_query_gains([row[seed] for seed in seeds], grid.metrics) for row in (runs, reference))
        for metric in grid.metrics:
            tested[metric][name] = paired_test(own[metric] - expected[metric], users)
    for metric, by_row in tested.items():
        corrected = holm([test.p_value for test in by_row.values()])
        for (name, test), p_corrected in zip(by_row.items(), corrected, strict=True):
            estimates[name][metric] = dataclasses.replace(
                estimates[name][metric],
                difference=test.mean,
                low=test.low,
                high=test.high,
                p_value=test.p_value,
                p_corrected=p_corrected,
            )


def _query_gains(runs: Sequence[FinishedRun], metrics: Sequence[str]) -> dict[str, np.ndarray]:
    """Each query's contribution to each metric: [runs, queries]."""
    ranks = [run.ranks() for run in runs]
    return {metric: np.stack([gains(of_run, metric) for of_run in ranks]) for metric in metrics}


def _validation(runs: Sequence[FinishedRun]) -> float:
    """The best value of the monitored metric, mean over the runs of a method."""
    trainings = [run.trainings for run in runs]
    if not all(len(parts) == 1 for parts in trainings) or not trainings:
        return float("nan")
    return float(np.mean([part.artifact("model").require().details["best"]["value"] for (part,) in trainings]))


def _effort(runs: Sequence[FinishedRun]) -> tuple[float, float]:
    """Epochs and seconds of training (without validation), summed over the parts, means over the runs."""
    histories = [
        [epoch for training in run.trainings for epoch in training.artifact("model").require().details["history"]]
        for run in runs
    ]
    if not histories:
        return float("nan"), float("nan")
    seconds = [sum(epoch["seconds"] for epoch in history) for history in histories]
    return float(np.mean([len(history) for history in histories])), float(np.mean(seconds))


def _protocol(split: SplitConfig, finished: Mapping[str, Mapping[int, FinishedRun]]) -> Protocol:
    firsts = {name: next(iter(seeds.values())) for name, seeds in finished.items()}
    results = {name: run.metrics() for name, run in firsts.items()}
    rows_by_similarity: dict[str, list[str]] = {}
    for name, result in results.items():
        rows_by_similarity.setdefault(result["similarity"], []).append(name)
    result, users = next(iter(results.values())), next(iter(firsts.values())).users()
    return Protocol(
        split, result["split"], result["queries"], int(users.max()) + 1, result["num_items"], rows_by_similarity
    )
