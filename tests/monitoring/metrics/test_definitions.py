"""The definitions, and their values after events, read in the format of Prometheus."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from alphafuse.events import (
    SPANS,
    ArtifactCommitted,
    BatchEmbedded,
    CheckpointWritten,
    EmbeddingProgress,
    EpochMetrics,
    Event,
    Metrics,
    Progress,
    StageFailed,
    StageFinished,
    StageSkipped,
    StageStarted,
    StageWarning,
    StepMeans,
    StepTaken,
    TrainingProgress,
    WorkerServing,
    WorkersGone,
    WorkersRestarted,
)
from alphafuse.storage.filesystem.folder import Folder
from monitoring.metrics import definitions as metrics
from monitoring.metrics.run_recorder import RunRecorder
from monitoring.metrics.worker_recorder import WorkerRecorder

WORKERS = [metric for group in metrics.WORKER_METRICS.values() for metric in group]
ALL = [*metrics.RUN_METRICS, *WORKERS, *metrics.PROCESS_METRICS, *metrics.SERVE_METRICS]
COUNTS = ("rows_requested", "rows_distinct", "rows_served", "rows_touched", "bytes_sent")
Samples = dict[tuple[str, ...], float]


def read(registry: CollectorRegistry) -> Samples:
    """Served values by (name, label values in the order of label names)."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_names_follow_the_rules_of_prometheus(metric: metrics.Metric) -> None:
    assert re.fullmatch(r"alphafuse_[a-z0-9]+(_[a-z0-9]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    name = metric.name.removesuffix("_total")
    assert not metric.unit or name.endswith(metric.unit)
    assert metric.unit or not name.endswith(("seconds", "bytes", "ratio"))
    assert metric.help.endswith(".")
    assert set(metric.labels) <= metrics.LABELS.keys()


def test_names_are_given_once() -> None:
    assert len({metric.name for metric in ALL}) == len(ALL)


def run(tmp_path: Path, *events: Event) -> Samples:
    registry = CollectorRegistry()
    record = RunRecorder(registry, Folder(str(tmp_path)))
    for event in events:
        record(event)
    return read(registry)


def texts(done: int, quarantined: int, time: float) -> Event:
    return EmbeddingProgress("embed", done, 100, "texts", 50, quarantined, batch_fill=1.0, engines=1, time=time)


def test_a_stage_from_its_start_to_its_end(tmp_path: Path) -> None:
    running = [
        StageStarted("embed", time=1000.0),
        texts(20, 0, 1010.0),
        texts(60, 3, 1020.0),
        StageWarning("embed", "…", time=1021.0),
    ]
    found = run(tmp_path, *running)
    assert found["alphafuse_stage_running", "embed"] == 1
    assert found["alphafuse_stage_done", "embed", "texts"] == 60
    assert found["alphafuse_stage_expected", "embed", "texts"] == 100
    assert found["alphafuse_stage_remaining_seconds", "embed"] == 10  # 40 texts in 10 seconds, 40 are left
    assert found["alphafuse_stage_quarantined_rows", "embed"] == 3
    assert found["alphafuse_stage_last_event_timestamp_seconds", "embed"] == 1021
    assert found["alphafuse_stage_warnings_total", "embed"] == 1
    assert ("alphafuse_stage_duration_seconds", "embed") not in found

    artifact = ArtifactCommitted("embed", "embeddings", rows=100, bytes=5000, files=2, time=1029.0)
    found = run(tmp_path, *running, artifact, StageFinished("embed", {"quarantined": 4}, time=1030.0))
    assert found["alphafuse_stage_running", "embed"] == 0
    assert found["alphafuse_stage_duration_seconds", "embed"] == 30
    assert found["alphafuse_stage_remaining_seconds", "embed"] == 0
    assert found["alphafuse_stage_quarantined_rows", "embed"] == 4
    assert found["alphafuse_artifact_rows", "embeddings"] == 100
    assert found["alphafuse_artifact_bytes", "embeddings"] == 5000


def test_another_part_of_a_stage_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        Progress("prepare", 90, 100, "files", time=10.0),
        Progress("prepare", 1, 100, "shards", time=11.0),
    )
    assert ("alphafuse_stage_done", "prepare", "files") not in found
    assert found["alphafuse_stage_done", "prepare", "shards"] == 1
    assert math.isnan(found["alphafuse_stage_remaining_seconds", "prepare"])


def test_a_stage_need_not_know_its_end(tmp_path: Path) -> None:
    found = run(tmp_path, *(Progress("recommend", done, None, "users", time=float(done)) for done in (1, 2)))
    assert found["alphafuse_stage_done", "recommend", "users"] == 2
    assert ("alphafuse_stage_expected", "recommend", "users") not in found
    assert math.isnan(found["alphafuse_stage_remaining_seconds", "recommend"])


@pytest.mark.parametrize(
    ("end", "failures"),
    [(StageFailed("train", "…"), 1), (StageFailed("train", "interrupted"), 0), (StageSkipped("train"), 0)],
)
def test_other_ends(tmp_path: Path, end: Event, failures: int) -> None:
    found = run(tmp_path, StageStarted("train", time=1.0), end)
    assert found["alphafuse_stage_running", "train"] == 0
    assert found["alphafuse_stage_failures_total", "train"] == failures


def test_a_training(tmp_path: Path) -> None:
    progress = TrainingProgress(
        "train", 10, 100, "steps", epoch=2, loss=4.5, learning_rate=1e-3, table_learning_rate=1e-2,
        gradient_norm=math.nan, table_gradient_norm=0.3, time=100.0,
    )  # fmt: skip
    numbers = {"ndcg@20": 0.1, "hr@5": 0.2, "mrr@1": 0.3}
    found = run(
        tmp_path,
        StageStarted("train", time=50.0),
        progress,
        EpochMetrics("train", split="validation", epoch=1, loss=4.0, numbers=numbers, time=101.0),
        WorkersRestarted("train", "…", 1, time=102.0),
        CheckpointWritten("train", 10, seconds=0.5, bytes=1000, waited=0.1, time=103.0),
        Metrics("evaluate", numbers={"product_seconds": 3.5}, time=104.0),
        Metrics("evaluate", "test", {"ndcg@20": 0.4}, time=104.0),
    )
    assert found["alphafuse_train_loss",] == 4.5
    assert found["alphafuse_train_epoch",] == 2
    assert found["alphafuse_train_learning_rate", "dense"] == 1e-3
    assert found["alphafuse_train_learning_rate", "table"] == 1e-2
    assert math.isnan(found["alphafuse_train_gradient_norm", "dense"])
    assert found["alphafuse_train_gradient_norm", "table"] == 0.3
    assert found["alphafuse_evaluation_ndcg", "20", "validation"] == 0.1
    assert found["alphafuse_evaluation_hit_rate", "5", "validation"] == 0.2
    assert found["alphafuse_evaluation_mrr", "1", "validation"] == 0.3
    assert found["alphafuse_evaluation_ndcg", "20", "test"] == 0.4
    assert found["alphafuse_evaluation_phase_seconds", "product"] == 3.5
    assert found["alphafuse_restarts_total", "train"] == 1
    assert found["alphafuse_checkpoint_timestamp_seconds",] == 103
    assert found["alphafuse_checkpoint_duration_seconds",] == 0.5
    assert found["alphafuse_checkpoint_wait_seconds_total",] == 0.1
    assert found["alphafuse_checkpoint_size_bytes",] == 1000
    assert found["alphafuse_checkpoints_total",] == 1


def test_before_the_first_checkpoint_its_age_is_that_of_the_training(tmp_path: Path) -> None:
    assert run(tmp_path, StageStarted("train", time=50.0))["alphafuse_checkpoint_timestamp_seconds",] == 50


def test_a_decomposition(tmp_path: Path) -> None:
    values = {
        "num_rows": 90, "passes": 2, "residual": 1e-3, "retained_energy": 0.8, "row_dim": 5, "null_dim": 3, "clamped": 1
    }  # fmt: skip
    found = run(tmp_path, Metrics("decompose", numbers=values))
    names = ("rows", "passes", "residual_ratio", "retained_energy_ratio", "row_dimensions", "null_dimensions")
    assert [found[f"alphafuse_decompose_{name}",] for name in names] == [90, 2, 1e-3, 0.8, 5, 3]


def test_what_is_not_known_is_not_served(tmp_path: Path) -> None:
    found = run(tmp_path, WorkerServing("train", "0", "127.0.0.1:1"), WorkersGone("train"))
    assert {name for name, *_ in found} == {
        "alphafuse_checkpoints_total", "alphafuse_checkpoint_wait_seconds_total", "alphafuse_workspace_free_bytes",
        "alphafuse_workspace_size_bytes",
    }  # fmt: skip
    assert 0 < found["alphafuse_workspace_free_bytes",] < found["alphafuse_workspace_size_bytes",]


def test_the_disk_of_a_remote_workspace_is_not_known() -> None:
    registry = CollectorRegistry()
    RunRecorder(registry, Folder("memory:///somewhere"))
    assert ("alphafuse_workspace_free_bytes",) not in read(registry)


def test_the_steps_of_a_worker() -> None:
    registry = CollectorRegistry()
    record = WorkerRecorder(registry, "train")
    for step in (1, 2):
        measured = {f"{span}_seconds": 0.01 * (number + 1) for number, span in enumerate(SPANS)}
        measured |= dict.fromkeys(COUNTS, 10.0 * step)
        record(StepTaken("train", rank=0, step=step, seconds=0.3 * step, samples=32, **measured))
    record(Progress("train", 2, 9, "steps"))  # the driver's
    means = StepMeans(
        "train", rank=0, step=2, seconds=0.45, world_size=1, steps=2, samples_per_second=1.0, memory_bytes=1,
        device_memory_bytes=None, host="a",
    )  # fmt: skip
    record(means)
    found = read(registry)
    assert found["alphafuse_train_steps_total",] == 2
    assert found["alphafuse_train_samples_total",] == 64
    assert found["alphafuse_train_step_seconds_sum",] == pytest.approx(0.9)
    assert found["alphafuse_train_step_seconds_bucket", "0.5"] == 1
    assert found["alphafuse_train_step_seconds_bucket", "1.0"] == 2
    for number, span in enumerate(SPANS):
        assert found["alphafuse_train_phase_seconds_sum", span] == pytest.approx(0.02 * (number + 1))
    for name in ("table_rows_requested", "table_rows_distinct", "table_rows_served", "table_rows_touched"):
        assert found[f"alphafuse_{name}_total",] == 30
    assert found["alphafuse_exchange_sent_bytes_total",] == 30
    assert ("alphafuse_device_memory_bytes",) not in found
    record(dataclasses.replace(means, device_memory_bytes=77))
    assert read(registry)["alphafuse_device_memory_bytes",] == 77


def test_the_batches_of_an_engine() -> None:
    registry = CollectorRegistry()
    record = WorkerRecorder(registry, "embed")
    for _ in range(2):
        record(BatchEmbedded("embed", texts=8, tokens=50, seconds=0.4, fill=0.5, retries=2, failed={"too long": 3}))
    found = read(registry)
    assert found["alphafuse_embed_texts_total",] == 16
    assert found["alphafuse_embed_tokens_total",] == 100
    assert found["alphafuse_embed_retries_total",] == 4
    assert found["alphafuse_embed_failed_texts_total", "too long"] == 6
    assert found["alphafuse_embed_batch_seconds_sum",] == pytest.approx(0.8)
    assert found["alphafuse_embed_batch_fill_ratio",] == 0.5


def test_workers_of_other_stages_have_no_metrics_of_their_own() -> None:
    registry = CollectorRegistry()
    WorkerRecorder(registry, "export")
    assert read(registry) == {}
