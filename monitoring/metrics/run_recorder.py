"""Turns what the stages of a run report into its metrics (`metrics.RUN_METRICS`)."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from alphafuse.events import INTERRUPTED, Event, Value
from alphafuse.storage.folder import Folder
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
"""Metric and labels of each value."""


@dataclass
class _Part:
    """What a stage counts at present: since when, and from where on."""

    unit: Value
    since: float
    begun_with: float


class RunRecorder:
    """A listener.

    Args:
        registry: to register the metrics in.
        folder: of the workspace; the free space of its disk is told where it is a local one.
    """

    def __init__(self, registry: CollectorRegistry, folder: Folder) -> None:
        self._metrics = m.Instruments(registry, m.RUN_METRICS)
        self._started: dict[str, float] = {}
        self._parts: dict[str, _Part] = {}
        if "://" not in folder.uri:
            self._metrics.set_function(m.WORKSPACE_FREE, lambda: shutil.disk_usage(folder.uri).free)
            self._metrics.set_function(m.WORKSPACE_SIZE, lambda: shutil.disk_usage(folder.uri).total)

    def __call__(self, event: Event) -> None:
        self._metrics.set(m.STAGE_EVENT, event.time, event.stage)
        hear = {
            "started": self._on_started,
            "progress": self._on_progress,
            "metrics": self._on_metrics,
            "artifact": self._on_artifact,
            "checkpoint": self._on_checkpoint,
            "warning": lambda _: self._metrics.add(m.STAGE_WARNINGS, 1, event.stage),
            "restart": lambda _: self._metrics.add(m.RESTARTS, 1, event.stage),
            "finished": self._on_end,
            "skipped": self._on_end,
            "failed": self._on_end,
        }
        if event.kind in hear:
            hear[event.kind](event)

    def _on_started(self, event: Event) -> None:
        self._started[event.stage] = event.time
        self._metrics.set(m.STAGE_RUNNING, 1, event.stage)
        for counter in (m.RESTARTS, m.STAGE_WARNINGS, m.STAGE_FAILURES):
            self._metrics.add(counter, 0, event.stage)  # an increase is seen only from a value that is there
        if event.stage == "train":
            self._metrics.set(m.CHECKPOINT_TIME, event.time)

    def _on_progress(self, event: Event) -> None:
        stage, values = event.stage, event.values
        unit, done, total = values["unit"], _number(values["done"]), _number(values.get("total"))
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
        if "quarantined" in values:
            self._metrics.set(m.QUARANTINED, _number(values["quarantined"]), stage)
        if stage == "train":
            for name, (metric, labels) in TRAINING.items():
                self._metrics.set(metric, _number(values.get(name)), *labels)

    def _on_metrics(self, event: Event) -> None:
        for name, value in event.values.items():
            measure, at, cutoff = name.partition("@")
            if at and measure in QUALITY:
                self._metrics.set(QUALITY[measure], _number(value), event.values["split"], cutoff)
            elif event.stage == "decompose" and name in DECOMPOSITION:
                self._metrics.set(DECOMPOSITION[name], _number(value))

    def _on_artifact(self, event: Event) -> None:
        name = event.values["artifact"]
        self._metrics.set(m.ARTIFACT_ROWS, _number(event.values["rows"]), name)
        self._metrics.set(m.ARTIFACT_BYTES, _number(event.values["bytes"]), name)

    def _on_checkpoint(self, event: Event) -> None:
        self._metrics.add(m.CHECKPOINTS, 1)
        self._metrics.set(m.CHECKPOINT_TIME, event.time)
        self._metrics.set(m.CHECKPOINT_DURATION, _number(event.values["seconds"]))
        self._metrics.set(m.CHECKPOINT_SIZE, _number(event.values["bytes"]))

    def _on_end(self, event: Event) -> None:
        self._metrics.set(m.STAGE_RUNNING, 0, event.stage)
        self._metrics.set(m.STAGE_REMAINING, 0 if event.kind != "failed" else math.nan, event.stage)
        if event.kind != "skipped" and event.stage in self._started:
            self._metrics.set(m.STAGE_DURATION, event.time - self._started[event.stage], event.stage)
        if event.kind == "failed" and event.values.get("message") != INTERRUPTED:
            self._metrics.add(m.STAGE_FAILURES, 1, event.stage)
        if "quarantined" in event.values:
            self._metrics.set(m.QUARANTINED, _number(event.values["quarantined"]), event.stage)


def _number(value: Value) -> float:
    """NaN for what is not known."""
    return float(value) if isinstance(value, (int, float)) else math.nan
