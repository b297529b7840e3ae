"""Derives the curves of a training and the health of its workers from its events."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from alphafuse.events import (
    OWN_SPANS,
    EpochMetrics,
    Event,
    StageStarted,
    StepMeans,
    TrainingProgress,
    WorkersRestarted,
)

POINTS = 600
"""Largest number of points that are drawn of a curve: there are no more pixels."""
SLOW_FACTOR = 1.5
"""A worker is slow if its own work takes more than this many times the median of the others."""
CURVES = (
    "loss", "learning_rate", "table_learning_rate", "gradient_norm", "table_gradient_norm", "samples_per_second",
)  # fmt: skip
"""The numbers of `TrainingProgress` that are drawn over steps."""
SILENT_SECONDS, SILENT_FACTOR = 60.0, 3.0
"""A worker is silent if its latest report is older than that of another worker by more than so many seconds, and by
more than so many times the usual time between its reports."""


@dataclass(frozen=True)
class Curve:
    """A number `y` over steps or epochs `x`, both of shape [points]."""

    x: np.ndarray
    y: np.ndarray

    def thinned(self, points: int = POINTS) -> Curve:
        """Return about `points` points: the lowest and the highest of each stretch, so that no spike gets lost."""
        if len(self.x) <= points:
            return self
        bounds = np.linspace(0, len(self.x), points // 2 + 1).astype(int)
        kept = {0, len(self.x) - 1}
        for start, stop in itertools.pairwise(bounds):
            stretch = self.y[start:stop]
            if np.isfinite(stretch).any():
                kept |= {start + int(np.nanargmin(stretch)), start + int(np.nanargmax(stretch))}
        index = np.array(sorted(kept))
        return Curve(self.x[index], self.y[index])


@dataclass(frozen=True)
class Worker:
    """The state of a worker by its latest report.

    Attributes:
        means: latest report of the worker.
        busy: seconds of a step in which the worker waits for no other. `backward` is not included: it averages the
            dense gradients, so that a fast rank waits for a slow one.
        complaint: what is wrong with the worker, compared with the others; empty if nothing is.
    """

    means: StepMeans
    busy: float
    complaint: str = ""

    @property
    def rank(self) -> int:
        return self.means.rank


@dataclass(frozen=True)
class Training:
    """The curves and the workers of a training.

    Attributes:
        by_step: curves over steps: loss, samples_per_second, learning rates, norms (`CURVES`).
        by_epoch: curves over epochs: mean training loss (`loss`) and validation metrics.
        spans: curves over steps: seconds of each span of a step, means over the workers; `rest` is time in no span.
        workers: workers in the order of their ranks.
        restarts: number of restarts of the workers since the latest start of the stage.
    """

    by_step: Mapping[str, Curve] = field(default_factory=dict)
    by_epoch: Mapping[str, Curve] = field(default_factory=dict)
    spans: Mapping[str, Curve] = field(default_factory=dict)
    workers: Sequence[Worker] = ()
    restarts: int = 0

    def best(self, metric: str) -> tuple[int, float] | None:
        """Epoch and value of a validation metric at its largest value; None if it was never measured."""
        curve = self.by_epoch.get(metric)
        if curve is None or not len(curve.x):
            return None
        place = int(np.argmax(curve.y))
        return int(curve.x[place]), float(curve.y[place])

    def slowest_span(self) -> tuple[str, float] | None:
        """The span that takes the most time of a step, and its share, over the last tenth of the reports."""
        recent = {name: float(np.mean(curve.y[-max(1, len(curve.y) // 10) :])) for name, curve in self.spans.items()}
        if not recent or not sum(recent.values()):
            return None
        name = max(recent, key=lambda span: recent[span])
        return name, recent[name] / sum(recent.values())


def training_of(events: Iterable[Event]) -> Training:
    """Derive curves and workers from the events of the stage `train`, oldest first, over all its runs.

    A training that continues from a checkpoint repeats some steps, and a training that is run again repeats all of
    them. The reports of repeated steps replace the earlier ones.
    """
    by_step, by_epoch, step_spans = _Points(), _Points(), _Points()
    reports: dict[int, list[StepMeans]] = defaultdict(list)
    restarts = 0
    for event in events:
        match event:
            case StageStarted():
                reports, restarts = defaultdict(list), 0
            case TrainingProgress():
                numbers = {name: getattr(event, name) for name in CURVES}
                by_step.add(event.done, {name: value for name, value in numbers.items() if value is not None})
            case EpochMetrics():
                by_epoch.add(event.epoch, {"loss": event.loss, **event.numbers})
            case WorkersRestarted():
                reports, restarts = defaultdict(list), restarts + 1
            case StepMeans():
                reports[event.rank].append(event)
                spans = event.span_seconds()
                rest = max(0.0, event.seconds - sum(spans.values()))
                step_spans.add(event.step, {**spans, "rest": rest}, event.rank)
    return Training(by_step.curves(), by_epoch.curves(), step_spans.curves(), _workers(reports), restarts)


class _Points:
    """Numbers by name over x, from one or several sources. If the x of a source goes back, its points from there on are
    dropped."""

    def __init__(self) -> None:
        self._sources: dict[int, list[tuple[float, dict[str, float]]]] = defaultdict(list)

    def add(self, x: float, numbers: dict[str, float], source: int = 0) -> None:
        points = self._sources[source]
        while points and points[-1][0] >= x:
            points.pop()
        points.append((x, numbers))

    def curves(self) -> dict[str, Curve]:
        names = dict.fromkeys(name for points in self._sources.values() for _, numbers in points for name in numbers)
        return {name: _mean(self._of_sources(name)) for name in names}

    def _of_sources(self, name: str) -> list[Curve]:
        chosen = [[(x, numbers[name]) for x, numbers in points if name in numbers] for points in self._sources.values()]
        return [Curve(*np.array(points).T) for points in chosen if points]


def _mean(curves: Sequence[Curve]) -> Curve:
    """Mean of curves with different x. A curve keeps its value until its next point, and counts from its first point to
    its last."""
    if len(curves) == 1:
        return curves[0]
    x = np.unique(np.concatenate([curve.x for curve in curves]))
    values = np.full((len(curves), len(x)), np.nan)
    for row, curve in zip(values, curves, strict=True):
        inside = (x >= curve.x[0]) & (x <= curve.x[-1])
        row[inside] = curve.y[np.searchsorted(curve.x, x[inside], side="right") - 1]
    counted = np.isfinite(values)
    total = np.where(counted, values, 0.0).sum(axis=0)
    return Curve(x, np.divide(total, counted.sum(axis=0), out=np.full(len(x), np.nan), where=counted.any(axis=0)))


def _workers(reports: Mapping[int, Sequence[StepMeans]]) -> list[Worker]:
    """The latest report of each rank, with what is wrong with it."""
    latest = {rank: received[-1] for rank, received in sorted(reports.items())}
    busy = {rank: _busy(event) for rank, event in latest.items()}
    newest = max((event.time for event in latest.values()), default=0.0)
    workers = []
    for rank, event in latest.items():
        others = [seconds for other, seconds in busy.items() if other != rank]
        complaint = ""
        if newest - event.time > max(SILENT_SECONDS, SILENT_FACTOR * _usual_gap(reports[rank])):
            complaint = "silent"
        elif others and busy[rank] > SLOW_FACTOR * (usual := statistics.median(others)) and usual > 0:
            complaint = f"slow: {busy[rank] / usual:.1f} × the others"
        workers.append(Worker(event, busy[rank], complaint))
    return workers


def _busy(means: StepMeans) -> float:
    spans = means.span_seconds()
    return sum(spans[name] for name in OWN_SPANS)


def _usual_gap(reports: Sequence[Event]) -> float:
    gaps = [after.time - before.time for before, after in itertools.pairwise(reports)]
    return statistics.median(gaps) if gaps else 0.0
