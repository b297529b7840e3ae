"""Turns the events of a worker's steps and batches into the metrics of its process (`definitions.WORKER_METRICS`)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from alphafuse.events import BatchEmbedded, Event, StepMeans, StepTaken
from monitoring.metrics import definitions as m

COUNTERS = {
    "samples": m.SAMPLES,
    "rows_requested": m.ROWS_REQUESTED,
    "rows_distinct": m.ROWS_DISTINCT,
    "rows_served": m.ROWS_SERVED,
    "rows_touched": m.ROWS_TOUCHED,
    "bytes_sent": m.BYTES_SENT,
}


class WorkerRecorder:
    """Listener in a worker of `stage`. It must be fast, since it gets an event of every step."""

    def __init__(self, registry: CollectorRegistry, stage: str) -> None:
        self._metrics = m.Instruments(registry, m.WORKER_METRICS.get(stage, ()))

    def __call__(self, event: Event) -> None:
        match event:
            case StepTaken():
                self._on_step(event)
            case BatchEmbedded():
                self._on_batch(event)
            case StepMeans() if event.device_memory_bytes is not None:
                self._metrics.set(m.DEVICE_MEMORY, event.device_memory_bytes)

    def _on_step(self, event: StepTaken) -> None:
        metrics = self._metrics
        metrics.add(m.STEPS, 1)
        metrics.observe(m.STEP_SECONDS, event.seconds)
        for span, seconds in event.span_seconds().items():
            metrics.observe(m.SPAN_SECONDS, seconds, span)
        for name, metric in COUNTERS.items():
            metrics.add(metric, getattr(event, name))

    def _on_batch(self, event: BatchEmbedded) -> None:
        metrics = self._metrics
        metrics.add(m.EMBED_TEXTS, event.texts)
        metrics.add(m.EMBED_TOKENS, event.tokens)
        metrics.add(m.EMBED_RETRIES, event.retries)
        metrics.observe(m.EMBED_SECONDS, event.seconds)
        metrics.set(m.EMBED_FILL, event.fill)
        for reason, count in event.failed.items():
            metrics.add(m.EMBED_FAILED, count, reason)
