"""Turns the events of a run's stages into the metrics of the run (`definitions.RUN_METRICS`)."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from alphafuse.events import (
    INTERRUPTED,
    RANKING_SPANS,
    ArtifactCommitted,
    CheckpointWritten,
    EmbeddingProgress,
    Event,
    Metrics,
    Progress,
    StageFailed,
    StageFinished,
    StageRefused,
    StageSkipped,
    StageStarted,
    StageWarning,
    TrainingProgress,
    Value,
    WorkerServing,
    WorkersGone,
    WorkersRestarted,
)
from alphafuse.storage.filesystem.folder import Folder
from monitoring.metrics import definitions as m

QUALITY = {"hr": m.HIT_RATE, "ndcg": m.NDCG, "mrr": m.MRR}
DECOMPOSITION = {
    "num_rows": m.DECOMPOSE_ROWS,
    "passes": m.DECOMPOSE_PASSES,
    "residual": m.DECOMPOSE_RESIDUAL,
    "retained_energy": m.DECOMPOSE_ENERGY,
    "row_dim": m.DECOMPOSE_ROW_DIM,
    "null_dim": m.DECOMPOSE_NULLITY,
    "clamped": m.DECOMPOSE_CLAMPED,
}
TRAINING: dict[str, tuple[m.Metric, tuple[str, ...]]] = {
    "epoch": (m.TRAIN_EPOCH, ()),
    "loss": (m.TRAIN_LOSS, ()),
    "learning_rate": (m.TRAIN_RATE, ("dense",)),
    "table_learning_rate": (m.TRAIN_RATE, ("table",)),
    "gradient_norm": (m.TRAIN_NORM, ("dense",)),
    "table_gradient_norm": (m.TRAIN_NORM, ("table",)),
}
"""Metric and labels of each field of `TrainingProgress`."""


@dataclass
class _Part:
    """The part of a stage that runs: the unit that it counts, when it began, and its count at that time."""

    unit: str
    since: float
    begun_with: float


class RunRecorder:
    """Listener that sets the run's metrics.

    Args:
        registry: registry for the metrics.
        folder: folder of the workspace; if it is local, size and free space of its disk are served.
    """

    def __init__(self, registry: CollectorRegistry, folder: Folder) -> None:
        self._metrics = m.Instruments(registry, m.RUN_METRICS)
        self._started: dict[str, float] = {}
        self._parts: dict[str, _Part] = {}
        if "://" not in folder.uri:
            self._metrics.set_function(m.WORKSPACE_FREE, lambda: shutil.disk_usage(folder.uri).free)
            self._metrics.set_function(m.WORKSPACE_SIZE, lambda: shutil.disk_usage(folder.uri).total)

    def __call__(self, event: Event) -> None:
        if isinstance(event, WorkerServing | WorkersGone):  # these concern processes, not the work of a stage
            return
        self._metrics.set(m.STAGE_EVENT, event.time, event.stage)
        match event:
            case StageStarted():
                self._on_started(event)
            case Progress():
                self._on_progress(event)
            case Metrics():
                self._on_metrics(event)
            case ArtifactCommitted():
                self._metrics.set(m.ARTIFACT_ROWS, _number(event.rows), event.artifact)
                self._metrics.set(m.ARTIFACT_BYTES, event.bytes, event.artifact)
            case CheckpointWritten():
                self._on_checkpoint(event)
            case StageWarning():
                self._metrics.add(m.STAGE_WARNINGS, 1, event.stage)
            case WorkersRestarted():
                self._metrics.add(m.RESTARTS, 1, event.stage)
            case StageFinished() | StageSkipped() | StageRefused() | StageFailed():
                self._on_end(event)

    def _on_started(self, event: StageStarted) -> None:
        self._started[event.stage] = event.time
        self._metrics.set(m.STAGE_RUNNING, 1, event.stage)
        for counter in (m.RESTARTS, m.STAGE_WARNINGS, m.STAGE_FAILURES):
            self._metrics.add(counter, 0, event.stage)  # Prometheus sees an increase only over an earlier value
        if event.stage == "train":
            self._metrics.set(m.CHECKPOINT_TIME, event.time)

    def _on_progress(self, event: Progress) -> None:
        stage, unit, done, total = event.stage, event.unit, event.done, _number(event.total)
        part = self._parts.get(stage)
        if part is None or part.unit != unit:
            part = self._parts[stage] = _Part(unit, event.time, done)
            for metric in (m.STAGE_DONE, m.STAGE_EXPECTED):
                self._metrics.drop(metric, stage)
        self._metrics.set(m.STAGE_DONE, done, stage, unit)
        if not math.isnan(total):
            self._metrics.set(m.STAGE_EXPECTED, total, stage, unit)
        rate = (done - part.begun_with) / (event.time - part.since) if event.time > part.since else math.nan
        self._metrics.set(m.STAGE_REMAINING, (total - done) / rate if rate else math.nan, stage)
        match event:
            case EmbeddingProgress():
                self._metrics.set(m.QUARANTINED, event.quarantined, stage)
            case TrainingProgress():
                for name, (metric, labels) in TRAINING.items():
                    self._metrics.set(metric, _number(getattr(event, name)), *labels)

    def _on_metrics(self, event: Metrics) -> None:
        for name, value in event.numbers.items():
            measure, at, cutoff = name.partition("@")
            if at and measure in QUALITY:
                self._metrics.set(QUALITY[measure], value, event.split, cutoff)
            elif event.stage == "decompose" and name in DECOMPOSITION:
                self._metrics.set(DECOMPOSITION[name], value)
            elif event.stage == "evaluate" and (span := name.removesuffix("_seconds")) in RANKING_SPANS:
                self._metrics.set(m.EVALUATION_SECONDS, value, span)

    def _on_checkpoint(self, event: CheckpointWritten) -> None:
        self._metrics.add(m.CHECKPOINTS, 1)
        self._metrics.set(m.CHECKPOINT_TIME, event.time)
        self._metrics.set(m.CHECKPOINT_DURATION, event.seconds)
        self._metrics.add(m.CHECKPOINT_WAIT, event.waited)
        self._metrics.set(m.CHECKPOINT_SIZE, event.bytes)

    def _on_end(self, event: StageFinished | StageSkipped | StageRefused | StageFailed) -> None:
        self._metrics.set(m.STAGE_RUNNING, 0, event.stage)
        self._metrics.set(m.STAGE_REMAINING, math.nan if isinstance(event, StageFailed) else 0, event.stage)
        if not isinstance(event, StageSkipped | StageRefused) and event.stage in self._started:
            self._metrics.set(m.STAGE_DURATION, event.time - self._started[event.stage], event.stage)
        if isinstance(event, StageFailed) and event.message != INTERRUPTED:
            self._metrics.add(m.STAGE_FAILURES, 1, event.stage)
        if isinstance(event, StageFinished) and "quarantined" in event.summary:
            self._metrics.set(m.QUARANTINED, _number(event.summary["quarantined"]), event.stage)


def _number(value: Value) -> float:
    """The value as a number; NaN if it is none."""
    return float(value) if isinstance(value, (int, float)) else math.nan
