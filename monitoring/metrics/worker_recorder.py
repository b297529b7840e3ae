"""Turns what a worker reports of its steps and batches into the metrics of its process (`metrics.WORKER_METRICS`)."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry

from alphafuse.events import Event
from alphafuse.training.step_events import PHASES
from monitoring.metrics import definitions as m

COUNTERS = {
    "samples": m.SAMPLES,
    "rows_requested": m.ROWS_REQUESTED,
    "rows_distinct": m.ROWS_DISTINCT,
    "rows_served": m.ROWS_SERVED,
    "rows_touched": m.ROWS_TOUCHED,
    "bytes_sent": m.BYTES_SENT,
}
FAILED = "failed."
"""What the values of an event `batch` begin with that tell how many texts failed for which reason."""


class WorkerRecorder:
    """A listener in a worker of `stage`; it hears every step, so it must be quick."""

    def __init__(self, registry: CollectorRegistry, stage: str) -> None:
        self._metrics = m.Instruments(registry, m.WORKER_METRICS.get(stage, ()))

    def __call__(self, event: Event) -> None:
        if event.kind == "step":
            self._on_step(event.values)
        elif event.kind == "batch":
            self._on_batch(event.values)
        elif event.kind == "worker" and event.values["device_memory_bytes"] is not None:
            self._metrics.set(m.DEVICE_MEMORY, event.values["device_memory_bytes"])  # type: ignore[arg-type]

    def _on_step(self, values: Any) -> None:
        metrics = self._metrics
        metrics.add(m.STEPS, 1)
        metrics.observe(m.STEP_SECONDS, values["seconds"])
        for phase in PHASES:
            metrics.observe(m.PHASE_SECONDS, values[f"{phase}_seconds"], phase)
        for name, metric in COUNTERS.items():
            metrics.add(metric, values[name])

    def _on_batch(self, values: Any) -> None:
        metrics = self._metrics
        metrics.add(m.EMBED_TEXTS, values["texts"])
        metrics.add(m.EMBED_TOKENS, values["tokens"])
        metrics.add(m.EMBED_RETRIES, values["retries"])
        metrics.observe(m.EMBED_SECONDS, values["seconds"])
        metrics.set(m.EMBED_FILL, values["fill"])
        for name, count in values.items():
            if name.startswith(FAILED):
                metrics.add(m.EMBED_FAILED, count, name.removeprefix(FAILED))
