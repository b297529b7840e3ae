"""Every metric that a run or the web service serves to Prometheus: name, type, labels, help, unit.
`docs/monitoring.md` lists them.

Names follow the rules of Prometheus: base units, the unit as suffix, `_total` for counters. A label takes few values,
which are named here. The labels of the scraped target say which run, stage and worker a metric comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from alphafuse.events import RANKING_SPANS, SPANS
from alphafuse.stages import ARTIFACTS, STAGE_NAMES

LABELS = {
    "stage": ", ".join(STAGE_NAMES),
    "artifact": ", ".join(ARTIFACTS),
    "unit": "the unit that the current part of the stage counts: texts, rows, steps, users, …",
    "phase": f"of a step: {', '.join(SPANS)}; of an evaluation: {', '.join(RANKING_SPANS)}",
    "part": "dense (backbone and encoder), table (rows of items)",
    "split": "validation, test",
    "k": "the cutoffs of evaluate.cutoffs",
    "alias": "production, candidate, previous",
    "reason": "refused, too long, not finite, zero vector",
    "endpoint": "recommend, similar",
    "code": "status of HTTP: 200, 400, 401, 413, 422, 500",
    "outcome": "swapped, refused",
    "version": "the version of the registry, or the first digits of the export's fingerprint",
}
"""The values of each label."""

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
"""Upper ends of the buckets of histograms of time."""


@dataclass(frozen=True, eq=False)  # compared by identity, as it is looked up in every step
class Metric:
    """The definition of a metric; `help` explains it to someone who sees only the name."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""


STAGE_RUNNING = Metric("alphafuse_stage_running", "gauge", "1 while the stage runs, else 0.", ("stage",))
STAGE_EVENT = Metric(
    "alphafuse_stage_last_event_timestamp_seconds", "gauge", "Time of the latest report of the stage.", ("stage",),
    "seconds",
)  # fmt: skip
STAGE_DONE = Metric(
    "alphafuse_stage_done", "gauge", "Units that the current part of the stage has done.", ("stage", "unit")
)
STAGE_EXPECTED = Metric(
    "alphafuse_stage_expected", "gauge", "Units that the current part of the stage will have done at its end.",
    ("stage", "unit"),
)  # fmt: skip
STAGE_REMAINING = Metric(
    "alphafuse_stage_remaining_seconds", "gauge",
    "Time left for the current part of the stage at the rate so far; NaN where it is not known.", ("stage",), "seconds",
)  # fmt: skip
STAGE_DURATION = Metric(
    "alphafuse_stage_duration_seconds", "gauge", "Time that the stage took in this run, once it has ended.", ("stage",),
    "seconds",
)  # fmt: skip
STAGE_WARNINGS = Metric("alphafuse_stage_warnings_total", "counter", "Warnings of the stage.", ("stage",))
STAGE_FAILURES = Metric(
    "alphafuse_stage_failures_total", "counter", "Times that the stage ended with an error.", ("stage",)
)
ARTIFACT_ROWS = Metric("alphafuse_artifact_rows", "gauge", "Rows of an artefact that is finished.", ("artifact",))
ARTIFACT_BYTES = Metric(
    "alphafuse_artifact_bytes", "gauge", "Size of the files of an artefact that is finished.", ("artifact",), "bytes"
)
QUARANTINED = Metric(
    "alphafuse_stage_quarantined_rows", "gauge", "Texts or items put aside because they cannot be embedded.", ("stage",)
)
WORKSPACE_FREE = Metric(
    "alphafuse_workspace_free_bytes", "gauge", "Free space of the disk of a local workspace.", (), "bytes"
)
WORKSPACE_SIZE = Metric(
    "alphafuse_workspace_size_bytes", "gauge", "Size of the disk of a local workspace.", (), "bytes"
)

DECOMPOSE_ROWS = Metric("alphafuse_decompose_rows", "gauge", "Rows of the embeddings that were decomposed.")
DECOMPOSE_PASSES = Metric(
    "alphafuse_decompose_passes", "gauge", "Passes over the embeddings that the decomposition took."
)
DECOMPOSE_RESIDUAL = Metric(
    "alphafuse_decompose_residual_ratio", "gauge",
    "Largest residual |Cu - lu| of the kept directions, over the largest eigenvalue.", (), "ratio",
)  # fmt: skip
DECOMPOSE_ENERGY = Metric(
    "alphafuse_decompose_retained_energy_ratio", "gauge", "Share of the variance in the kept directions.", (), "ratio"
)
DECOMPOSE_ROW_DIM = Metric("alphafuse_decompose_row_dimensions", "gauge", "Directions of the row space.")
DECOMPOSE_NULLITY = Metric("alphafuse_decompose_null_dimensions", "gauge", "Directions of the null space (nullity).")
DECOMPOSE_CLAMPED = Metric(
    "alphafuse_decompose_clamped_dimensions", "gauge", "Directions with too small an eigenvalue to be whitened by it."
)

TRAIN_EPOCH = Metric("alphafuse_train_epoch", "gauge", "The current epoch, counted from 1.")
TRAIN_LOSS = Metric("alphafuse_train_loss", "gauge", "Mean loss of the steps since the last report, over all workers.")
TRAIN_RATE = Metric("alphafuse_train_learning_rate", "gauge", "Current learning rate.", ("part",))
TRAIN_NORM = Metric("alphafuse_train_gradient_norm", "gauge", "Norm of the gradient before clipping.", ("part",))

HIT_RATE = Metric("alphafuse_evaluation_hit_rate", "gauge", "Share of targets among the first k.", ("split", "k"))
NDCG = Metric("alphafuse_evaluation_ndcg", "gauge", "NDCG of the targets at cutoff k.", ("split", "k"))
MRR = Metric("alphafuse_evaluation_mrr", "gauge", "Mean reciprocal rank of the targets at cutoff k.", ("split", "k"))
EVALUATION_SECONDS = Metric(
    "alphafuse_evaluation_phase_seconds", "gauge",
    "Time that the latest evaluation spent in one of its spans (label phase), in the mean over its workers.",
    ("phase",), "seconds",
)  # fmt: skip

CHECKPOINTS = Metric("alphafuse_checkpoints_total", "counter", "Checkpoints written.")
CHECKPOINT_TIME = Metric(
    "alphafuse_checkpoint_timestamp_seconds", "gauge",
    "Time at which the latest checkpoint was written; before the first one, the start of the training.", (), "seconds",
)  # fmt: skip
CHECKPOINT_DURATION = Metric(
    "alphafuse_checkpoint_duration_seconds", "gauge",
    "Time from the beginning of the latest checkpoint until it was complete, most of it beside the training.", (),
    "seconds",
)  # fmt: skip
CHECKPOINT_WAIT = Metric(
    "alphafuse_checkpoint_wait_seconds_total", "counter", "Time that training stood still for checkpoints.", (),
    "seconds",
)  # fmt: skip
CHECKPOINT_SIZE = Metric("alphafuse_checkpoint_size_bytes", "gauge", "Size of the latest checkpoint.", (), "bytes")

RESTARTS = Metric("alphafuse_restarts_total", "counter", "Times that workers of the stage were restarted.", ("stage",))

RUN_METRICS = (
    STAGE_RUNNING, STAGE_EVENT, STAGE_DONE, STAGE_EXPECTED, STAGE_REMAINING, STAGE_DURATION, STAGE_WARNINGS,
    STAGE_FAILURES, ARTIFACT_ROWS, ARTIFACT_BYTES, QUARANTINED, WORKSPACE_FREE, WORKSPACE_SIZE, DECOMPOSE_ROWS,
    DECOMPOSE_PASSES, DECOMPOSE_RESIDUAL, DECOMPOSE_ENERGY, DECOMPOSE_ROW_DIM, DECOMPOSE_NULLITY, DECOMPOSE_CLAMPED,
    TRAIN_EPOCH, TRAIN_LOSS, TRAIN_RATE, TRAIN_NORM, HIT_RATE, NDCG, MRR, EVALUATION_SECONDS, CHECKPOINTS,
    CHECKPOINT_TIME, CHECKPOINT_DURATION, CHECKPOINT_WAIT, CHECKPOINT_SIZE, RESTARTS,
)  # fmt: skip
"""Served by the process that runs the stages."""

EMBED_TEXTS = Metric("alphafuse_embed_texts_total", "counter", "Texts that this engine has embedded.")
EMBED_TOKENS = Metric("alphafuse_embed_tokens_total", "counter", "Tokens that this engine has read.")
EMBED_FAILED = Metric("alphafuse_embed_failed_texts_total", "counter", "Texts without a vector.", ("reason",))
EMBED_RETRIES = Metric(
    "alphafuse_embed_retries_total",
    "counter",
    "Parts of batches that were embedded again because the engine had refused the whole batch.",
)
EMBED_SECONDS = Metric(
    "alphafuse_embed_batch_seconds", "histogram", "Time that the engine computed for a batch.", (), "seconds"
)
EMBED_FILL = Metric(
    "alphafuse_embed_batch_fill_ratio", "gauge", "Texts of the latest batch over embed.batch_size.", (), "ratio"
)

STEPS = Metric("alphafuse_train_steps_total", "counter", "Optimizer steps of this worker.")
SAMPLES = Metric("alphafuse_train_samples_total", "counter", "Samples that this worker has trained on.")
STEP_SECONDS = Metric("alphafuse_train_step_seconds", "histogram", "Time of an optimizer step.", (), "seconds")
SPAN_SECONDS = Metric(
    "alphafuse_train_phase_seconds",
    "histogram",
    "Time that a step spent in one of its spans (label phase).",
    ("phase",),
    "seconds",
)
ROWS_REQUESTED = Metric("alphafuse_table_rows_requested_total", "counter", "Items looked up, repeats included.")
ROWS_DISTINCT = Metric("alphafuse_table_rows_distinct_total", "counter", "Distinct items looked up in each step.")
ROWS_SERVED = Metric(
    "alphafuse_table_rows_served_total", "counter", "Rows of this worker's shard that the workers asked for."
)
ROWS_TOUCHED = Metric(
    "alphafuse_table_rows_touched_total", "counter", "Rows of this worker's shard that the optimizer has updated."
)
BYTES_SENT = Metric(
    "alphafuse_exchange_sent_bytes_total", "counter",
    "Bytes sent to other workers: rows, gradients of rows, scores (not the dense gradients).", (), "bytes",
)  # fmt: skip
DEVICE_MEMORY = Metric("alphafuse_device_memory_bytes", "gauge", "GPU memory that tensors take.", (), "bytes")

WORKER_METRICS: dict[str, tuple[Metric, ...]] = {
    "embed": (EMBED_TEXTS, EMBED_TOKENS, EMBED_FAILED, EMBED_RETRIES, EMBED_SECONDS, EMBED_FILL),
    "train": (
        STEPS, SAMPLES, STEP_SECONDS, SPAN_SECONDS, ROWS_REQUESTED, ROWS_DISTINCT, ROWS_SERVED, ROWS_TOUCHED,
        BYTES_SENT, DEVICE_MEMORY,
    ),
}  # fmt: skip
"""Served by the workers of each stage, beside the metrics of every Python process (`process_…`)."""

STORAGE_RETRIES = Metric(
    "alphafuse_storage_retries_total", "counter", "Requests that were repeated because storage had failed for a moment."
)

MODEL_CREATED = Metric(
    "alphafuse_model_created_timestamp_seconds", "gauge", "Time at which the export of the version was finished.",
    ("alias",), "seconds",
)  # fmt: skip
MODEL_ITEMS = Metric("alphafuse_model_items", "gauge", "Items that the version can recommend.", ("alias",))
MODEL_UNTRAINED = Metric(
    "alphafuse_model_untrained_items", "gauge", "Items of the version that were added after its training.", ("alias",)
)
MODEL_TRAINING = Metric(
    "alphafuse_model_training_seconds", "gauge", "Time of the training that made the version.", ("alias",), "seconds"
)
MODEL_LOST_ENERGY = Metric(
    "alphafuse_model_lost_energy_ratio", "gauge",
    "Share of the variance that the kept null space has lost against the best one, as the update measured it.",
    ("alias",), "ratio",
)  # fmt: skip
MODEL_DISTORTION = Metric(
    "alphafuse_model_distortion_ratio", "gauge",
    "Change of the covariance of the whitened features since the null space was made, as the update measured it.",
    ("alias",), "ratio",
)  # fmt: skip
MODEL_OVERLAP = Metric(
    "alphafuse_model_overlap_ratio", "gauge", "Share of the ten best items that the parent recommends, too.",
    ("alias",), "ratio",
)  # fmt: skip

REGISTRY_METRICS = (
    MODEL_CREATED, MODEL_ITEMS, MODEL_UNTRAINED, MODEL_TRAINING, MODEL_LOST_ENERGY, MODEL_DISTORTION, MODEL_OVERLAP,
)  # fmt: skip
"""Served by `alphafuse models metrics`, for the versions of a registry that have an alias."""

PROCESS_METRICS = (STORAGE_RETRIES,)
"""Served by the run's own process and by all workers."""


SERVE_REQUESTS = Metric("alphafuse_serve_requests_total", "counter", "Requests answered.", ("endpoint", "code"))
SERVE_SECONDS = Metric(
    "alphafuse_serve_request_seconds", "histogram",
    "Time of a request in its replica, from its arrival to its answer.", ("endpoint",), "seconds",
)  # fmt: skip
SERVE_BATCHES = Metric("alphafuse_serve_batches_total", "counter", "Batches of requests that were ranked together.")
SERVE_RANKING = Metric("alphafuse_serve_ranking_seconds", "histogram", "Time of a batch.", (), "seconds")
SERVE_ASKED = Metric("alphafuse_serve_history_items_total", "counter", "Items of the histories of requests.")
SERVE_UNKNOWN = Metric(
    "alphafuse_serve_unknown_items_total", "counter", "Items of histories that the catalog of the model does not have."
)
SERVE_RELOADS = Metric(
    "alphafuse_serve_reloads_total", "counter", "Attempts to serve another model than before.", ("outcome",)
)
SERVE_OUTDATED = Metric(
    "alphafuse_serve_outdated", "gauge", "1 while the replica serves another model than the wanted one, else 0."
)
SERVE_LOADED = Metric(
    "alphafuse_serve_model_loaded_timestamp_seconds", "gauge", "Time at which the replica has loaded its model.",
    ("version",), "seconds",
)  # fmt: skip
SERVE_ITEMS = Metric("alphafuse_serve_model_items", "gauge", "Items in the catalog of the model.")

SERVE_METRICS = (
    SERVE_REQUESTS, SERVE_SECONDS, SERVE_BATCHES, SERVE_RANKING, SERVE_ASKED, SERVE_UNKNOWN, SERVE_RELOADS,
    SERVE_OUTDATED, SERVE_LOADED, SERVE_ITEMS,
)  # fmt: skip
"""Served by the web service, each with the label `replica`."""


class Instruments:
    """The metrics of one registry, addressed by their definitions.

    Counters and histograms begin at 0. A gauge is not served before it is set: 0 would be a value.
    """

    def __init__(self, registry: CollectorRegistry, metrics: Iterable[Metric]) -> None:
        self._registry = registry
        self._made: dict[Metric, Any] = {m: _make(m, registry) for m in metrics if m.kind != "gauge"}
        self._children: dict[tuple[Metric, tuple[object, ...]], Any] = {}

    def set(self, metric: Metric, value: float, *labels: object) -> None:
        """Set a gauge."""
        self._child(metric, labels).set(value)

    def add(self, metric: Metric, amount: float, *labels: object) -> None:
        """Increase a counter."""
        self._child(metric, labels).inc(amount)

    def observe(self, metric: Metric, value: float, *labels: object) -> None:
        """Add to a histogram."""
        self._child(metric, labels).observe(value)

    def set_function(self, metric: Metric, value: Callable[[], float]) -> None:
        """Let a gauge return the function's value whenever it is scraped."""
        self._child(metric, ()).set_function(value)

    def drop(self, metric: Metric, first_label: str) -> None:
        """Remove the values of a gauge whose first label has this value."""
        for key in [key for key in self._children if key[0] is metric and key[1][0] == first_label]:
            del self._children[key]
            self._made[metric].remove(*key[1])

    def _child(self, metric: Metric, labels: tuple[object, ...]) -> Any:
        child = self._children.get((metric, labels))
        if child is None:
            made = self._made.get(metric)
            if made is None:
                made = self._made[metric] = _make(metric, self._registry)
            child = self._children[metric, labels] = made.labels(*labels) if labels else made
        return child


def _make(metric: Metric, registry: CollectorRegistry) -> Gauge | Counter | Histogram:
    if metric.kind == "histogram":
        return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=SECONDS)
    kind = Gauge if metric.kind == "gauge" else Counter
    return kind(metric.name, metric.help, metric.labels, registry=registry)
