"""Tracking: numbers that the tools' own readers find after a continued and a repeated training. A tool that fails
causes one warning."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config import Config, parse_config
from alphafuse.events import (
    SPANS,
    EpochMetrics,
    Event,
    Metrics,
    StageFailed,
    StageFinished,
    StageSkipped,
    StageStarted,
    StageWarning,
    StepMeans,
    TrainingProgress,
)
from alphafuse.storage.workspace import Workspace
from monitoring.tracking import tracker
from monitoring.tracking.tracker import Tracker, tracking_tools

START = 1_700_000_000.0


def _train(first: int, last: int) -> list[Event]:
    """Events of a training from one epoch to another: two progress events and a validation in each."""
    events: list[Event] = [StageStarted("train", time=START)]
    for epoch in range(first, last + 1):
        for step in (2 * epoch - 1, 2 * epoch):
            numbers = {"loss": 8.0 / step, "gradient_norm": float("nan")}
            events.append(TrainingProgress("train", step, 8, "steps", epoch, **numbers, time=START + step))
        events += [_means(rank, 2 * epoch) for rank in (0, 1)]
        numbers = {"ndcg@20": epoch / 10}
        metrics = {"split": "validation", "epoch": epoch, "loss": 9.0 / epoch, "numbers": numbers}
        events.append(EpochMetrics("train", time=START + 2 * epoch, **metrics))
    return events


def _means(rank: int, step: int) -> Event:
    return StepMeans(
        "train", rank=rank, step=step, seconds=0.5, data_seconds=0.25, world_size=2, steps=1, samples_per_second=1.0,
        memory_bytes=1, device_memory_bytes=None, host="a", time=START,
    )  # fmt: skip


ENDED = StageFinished("train", {"epochs": 4}, time=START + 9)
EVALUATED = [
    StageStarted("evaluate", time=START + 10),
    Metrics("evaluate", "test", {"ndcg@20": 0.125}, time=START + 11),
    StageFinished("evaluate", {"queries": 7}, time=START + 12),
]


def _config(folder: Path, **monitoring: Any) -> Config:
    return parse_config({**tiny_config(folder).model_dump(mode="json"), "monitoring": monitoring})


def _track(config: Config, *events: Event) -> list[Event]:
    """Feed one process's events; returns the warnings."""
    received: list[Event] = []
    with tracking_tools(config, Workspace(config.workspace), received.append) as listen:
        for event in events:
            listen(event)
    return received


def _train_continue_evaluate(config: Config, folder: Path) -> None:
    """Track a training that is interrupted in its second epoch and continues from the checkpoint of the first."""
    interrupted = StageFailed("train", "interrupted", time=START + 5)
    assert _warnings(_track(config, *_train(1, 2), interrupted)) == []
    (folder / "checkpoints").mkdir()
    assert _warnings(_track(config, *_train(2, 4), ENDED, *EVALUATED)) == []


def _warnings(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, StageWarning)]


def test_tensorboard_reads_every_curve(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = _config(tmp_path, tensorboard={})
    _train_continue_evaluate(config, tmp_path)
    (folder,) = (tmp_path / "tensorboard").iterdir()
    read = accumulator.EventAccumulator(str(folder)).Reload()
    assert {(e.step, round(e.value, 6)) for e in read.Scalars("validation/ndcg@20")} == {
        (1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4),
    }  # fmt: skip
    losses = {event.step: event.value for event in read.Scalars("train/loss")}
    assert losses == pytest.approx({step: 8.0 / step for step in range(1, 9)})
    assert {e.step: e.wall_time for e in read.Scalars("train/loss")}[8] == START + 8
    assert [(e.step, e.value) for e in read.Scalars("test/ndcg@20")] == [(0, 0.125)]
    assert {e.value for e in read.Scalars("step/data_seconds")} == {0.25}
    assert set(read.Tags()["scalars"]) == {
        "train/loss", "train/gradient_norm", "epoch/loss", "validation/ndcg@20", "test/ndcg@20", "step/seconds",
        *(f"step/{span}_seconds" for span in SPANS),
    }  # fmt: skip


def test_mlflow_finds_one_run_with_its_settings_curves_and_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # its store that needs no server
    mlflow = pytest.importorskip("mlflow")
    uri = f"file://{tmp_path}/mlruns"
    config = _config(tmp_path / "run", mlflow={"uri": uri, "experiment": "shop"})
    (tmp_path / "run").mkdir()
    _train_continue_evaluate(config, tmp_path / "run")
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("shop")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.tags["workspace"] == str(tmp_path / "run")
    assert run.data.params["train.learning_rate"] == "0.01"
    assert run.data.params["model.encoder.name"] == "alphafuse"
    validated = client.get_metric_history(run.info.run_id, "validation/ndcg_at_20")
    assert {(metric.step, metric.value) for metric in validated} == {(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)}
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert {metric.step: metric.value for metric in losses} == {step: 8.0 / step for step in range(1, 9)}
    assert {metric.timestamp for metric in losses if metric.step == 8} == {1000 * (START + 8)}
    assert run.data.metrics["test/ndcg_at_20"] == 0.125

    (tmp_path / "run" / "checkpoints").rmdir()  # as --redo train does
    _track(config, *_train(1, 1), StageFailed("train", "no memory", time=START))
    again = [each for each in client.search_runs([experiment.experiment_id]) if each.info.run_id != run.info.run_id]
    assert [each.info.status for each in again] == ["FAILED"]


def test_a_finished_training_is_no_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = _config(tmp_path, tensorboard={})
    _track(config, StageStarted("train"), StageSkipped("train"))
    assert not (tmp_path / "tensorboard").exists()


def test_a_missing_package_is_a_warning_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    (warning,) = _warnings(_track(_config(tmp_path, mlflow={"uri": "http://127.0.0.1:9"}), *_train(1, 1), ENDED))
    assert "pip install 'alphafuse[mlflow]'" in warning


class _Broken:
    """A tool that fails at the third call of `log`."""

    def __init__(self) -> None:
        self.logged = 0

    def begin(self, is_new: bool) -> None:
        assert is_new

    def log(self, step: int, numbers: Mapping[str, float], time: float) -> None:
        self.logged += 1
        if self.logged == 3:
            raise OSError("the disk is full")

    def end(self, failed: bool) -> None:
        raise AssertionError("a tool that failed gets nothing more")


def test_a_tool_that_fails_is_a_warning_once(tmp_path: Path) -> None:
    broken, received = _Broken(), list[Event]()
    with Tracker("Keeper", lambda: broken, Workspace(str(tmp_path)), received.append) as listen:
        for event in (*_train(1, 4), ENDED):
            listen(event)
    assert broken.logged == 3
    (warning,) = _warnings(received)
    assert warning == ("Keeper does not keep this run any more; the run itself goes on (OSError: the disk is full)")


def test_a_tool_that_hangs_holds_up_neither_the_run_nor_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "CLOSE_SECONDS", 0.1)
    over, received = threading.Event(), list[Event]()

    class Hanging(_Broken):
        def begin(self, is_new: bool) -> None:
            over.wait()

    with Tracker("Keeper", Hanging, Workspace(str(tmp_path)), received.append) as listen:
        for event in _train(1, 1):
            listen(event)
    over.set()
    (warning,) = _warnings(received)
    assert "has not taken all within" in warning


def test_an_unreachable_server_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = _config(tmp_path, mlflow={"uri": "http://127.0.0.1:9"})
    (warning,) = _warnings(_track(config, *_train(1, 1), ENDED))
    assert warning.startswith("MLflow does not keep this run any more")
