"""The curves of a training and the health of its workers, from its events (`step`, `epoch` and `rank` by rank)."""

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
"""More points than this are not drawn: there are fewer pixels."""
SLOW_FACTOR = 1.5
"""A worker is slow when its own work takes this many times as long as that of the others."""
CURVES = (
    "loss", "learning_rate", "table_learning_rate", "gradient_norm", "table_gradient_norm", "samples_per_second",
)  # fmt: skip
"""The numbers of `TrainingProgress` that are drawn over steps."""
SILENT_SECONDS, SILENT_FACTOR = 60.0, 3.0
"""A worker is silent when it has told nothing for both: seconds, and times the usual distance of two reports,
while others have."""


@dataclass(frozen=True)
class Curve:
    """A number over steps or epochs: [points] each."""

    x: np.ndarray
    y: np.ndarray

    def thinned(self, points: int = POINTS) -> Curve:
        """At most about `points`: of each stretch the lowest and the highest, so that no spike gets lost."""
        if len(self.x) <= points:
            return self
        bounds = np.linspace(0, len(self.x), points // 2 + 1).astype(int)
        kept = {0, len(self.x) - 1}
        for start, stop in itertools.pairwise(bounds):
            part = self.y[start:stop]
            if np.isfinite(part).any():
                kept |= {start + int(np.nanargmin(part)), start + int(np.nanargmax(part))}
        index = np.array(sorted(kept))
        return Curve(self.x[index], self.y[index])


@dataclass(frozen=True)
class Worker:
    """What a rank has reported last.

    Attributes:
        means: its latest report.
        busy: seconds of a step in which it waits for no other. `backward` is not among them: in it the dense gradients
            are averaged, and a fast rank waits for a slow one.
        complaint: what is wrong with it, compared with the others; empty where nothing is.
    """

    means: StepMeans
    busy: float
    complaint: str = ""

    @property
    def rank(self) -> int:
        return self.means.rank


@dataclass(frozen=True)
class Training:
    """Everything that is drawn of a training.

    Attributes:
        by_step: loss, samples_per_second, learning rates, norms (`CURVES`).
        by_epoch: mean training loss (`loss`) and validation metrics.
        parts: seconds of a step by what they go to, means over the workers; `rest` is what no part names.
        workers: by rank.
        restarts: of the workers, so far.
    """

    by_step: Mapping[str, Curve] = field(default_factory=dict)
    by_epoch: Mapping[str, Curve] = field(default_factory=dict)
    parts: Mapping[str, Curve] = field(default_factory=dict)
    workers: Sequence[Worker] = ()
    restarts: int = 0

    def best(self, metric: str) -> tuple[int, float] | None:
        """Epoch and value of the largest value of a validation metric."""
        curve = self.by_epoch.get(metric)
        if curve is None or not len(curve.x):
            return None
        place = int(np.argmax(curve.y))
        return int(curve.x[place]), float(curve.y[place])

    def slowest_part(self) -> tuple[str, float] | None:
        """What most of a step's time goes to, lately (over the last tenth of the reports), and its share."""
        recent = {name: float(np.mean(curve.y[-max(1, len(curve.y) // 10) :])) for name, curve in self.parts.items()}
        if not recent or not sum(recent.values()):
            return None
        name = max(recent, key=lambda part: recent[part])
        return name, recent[name] / sum(recent.values())


def training_of(events: Iterable[Event]) -> Training:
    """Curves and workers from the events of the stage `train`, oldest first, over all its runs.

    A training that goes on from a checkpoint takes some steps again, one that is made again all of them: what it
    tells then replaces what was told before.
    """
    by_step, by_epoch, parts = _Points(), _Points(), _Points()
    reports: dict[int, list[StepMeans]] = defaultdict(list)
    restarts = 0
    for event in events:
        match event:
            case StageStarted():
                reports, restarts = defaultdict(list), 0
            case TrainingProgress():
                told = {name: getattr(event, name) for name in CURVES}
                by_step.add(event.done, {name: value for name, value in told.items() if value is not None})
            case EpochMetrics():
                by_epoch.add(event.epoch, {"loss": event.loss, **event.numbers})
            case WorkersRestarted():
                reports, restarts = defaultdict(list), restarts + 1
            case StepMeans():
                reports[event.rank].append(event)
                spans = event.span_seconds()
                rest = max(0.0, event.seconds - sum(spans.values()))
                parts.add(event.step, {**spans, "rest": rest}, event.rank)
    return Training(by_step.curves(), by_epoch.curves(), parts.curves(), _workers(reports), restarts)


class _Points:
    """Numbers by name over x, from one or several sources. A source's x only grows: a point at or before its last one
    takes its later ones away."""

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
    """Over curves with different x, each of which keeps its value until its next point, and counts up to its last."""
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
    latest = {rank: told[-1] for rank, told in sorted(reports.items())}
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


def _usual_gap(told: Sequence[Event]) -> float:
    gaps = [after.time - before.time for before, after in itertools.pairwise(told)]
    return statistics.median(gaps) if gaps else 0.0
