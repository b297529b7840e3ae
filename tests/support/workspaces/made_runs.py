"""Writes workspaces like those of real runs, in every state that the dashboard tells apart."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

import yaml
from support.workspaces.finished_workspace import finished_workspace
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.events import (
    EpochMetrics,
    Event,
    Metrics,
    StageFailed,
    StageFinished,
    StageStarted,
    StepMeans,
    TrainingProgress,
    WorkersRestarted,
)
from monitoring.run_log.event_log import to_record

EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


def write_events(folder: Path, events: Iterable[Event]) -> None:
    """Write events like the event log, but all of them at once. The event log itself would thin out events that are
    close together, and rewrite the file for each event."""
    (folder / "events").mkdir(parents=True, exist_ok=True)
    for event in events:
        with (folder / "events" / f"{event.stage}.jsonl").open("a") as file:
            file.write(json.dumps(to_record(event)) + "\n")


def beat(folder: Path, age: float = 0.0, ended: bool = False) -> None:
    """Write a heartbeat of `age` seconds ago."""
    (folder / "events").mkdir(parents=True, exist_ok=True)
    content = json.dumps({"time": time.time() - age, "ended": ended})
    # Whole or not at all, as runs write it: somebody may read it at any moment.
    written = folder / "events" / "heartbeat.json.new"
    written.write_text(content)
    written.replace(folder / "events" / "heartbeat.json")


def configure(folder: Path, **train: object) -> None:
    """Write the configuration of a run, with these settings of `train`."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = tiny_config(folder, **train).model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))


def training(first: int, last: int, since: float, workers: int = 2, slow: float = 1.0) -> list[Event]:
    """Events of a training from one step to another, one step per second and ten steps per epoch.

    Args:
        since: time of step 0.
        slow: factor by which the own work of the last rank takes longer.
    """
    events: list[Event] = []
    for step in range(first, last + 1):
        now = since + step
        for rank in range(workers):
            own = 0.05 * (slow if rank == workers - 1 else 1.0)
            parts = {"data": 0.01, "lookup": own, "forward": 0.02, "backward": 0.04, "optimizer": 0.01}
            total = 0.05 * slow + 0.1
            means = StepMeans(
                "train",
                rank=rank,
                step=step,
                seconds=total,
                exchange_seconds=total - sum(parts.values()),
                rows_served=900,
                bytes_sent=5e5,
                world_size=workers,
                steps=1,
                samples_per_second=64 / total,
                memory_bytes=700_000_000,
                device_memory_bytes=None,
                host=EVIL,
                time=now,
                **{f"{name}_seconds": seconds for name, seconds in parts.items()},
            )
            events.append(means)
        loss, rate = 8.0 / (1 + step) ** 0.2, 64 * workers / 0.15
        events.append(
            TrainingProgress("train", step, 400, "steps", 1 + step // 10, loss, samples_per_second=rate, time=now)
        )
        if step % 10 == 0:
            events.append(_epoch(step // 10, loss, 0.1 + step / 1e4, now))
    return events


def _epoch(epoch: int, loss: float, ndcg: float, time: float) -> Event:
    return EpochMetrics("train", split="validation", epoch=epoch, loss=loss, numbers={"ndcg@20": ndcg}, time=time)


def finished_run(folder: Path) -> None:
    """Write a run whose stages are all done; its texts are hostile."""
    config, _ = finished_workspace(folder, EVIL)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    for log in (folder / "events").iterdir():
        log.unlink()
    since = time.time() - 3600
    write_events(folder, [StageStarted("train", time=since), *training(1, 60, since)])
    write_events(folder, [StageFinished("train", {"epochs": 6}, time=since + 61)])
    write_events(folder, [StageStarted("evaluate", time=since + 62)])
    write_events(folder, [Metrics("evaluate", "test", {"ndcg@20": 0.125}, time=since + 63)])
    summary = {"queries": 7, "seen_items": "left out", "ndcg@20": 0.125}
    write_events(folder, [StageFinished("evaluate", summary, time=since + 64)])
    beat(folder, age=3500, ended=True)


def failed_run(folder: Path) -> None:
    """Write a run that failed in `embed`."""
    configure(folder)
    since = time.time() - 600
    write_events(folder, [StageStarted("embed", time=since)])
    write_events(folder, [StageFailed("embed", f"no model {EVIL} is here", time=since + 5)])
    beat(folder, age=590, ended=True)


def lost_run(folder: Path) -> None:
    """Write a run whose process was killed in the 20th step."""
    configure(folder)
    since = time.time() - 1200
    write_events(folder, [StageStarted("train", time=since), *training(1, 20, since)])
    beat(folder, age=1180)


def half_written_run(folder: Path) -> None:
    """Write a run that was copied while it began: a line is cut off, and an artefact has no manifest yet."""
    configure(folder)
    (folder / "catalog").mkdir()
    (folder / "catalog" / "part-00000.parquet").write_bytes(b"PAR1")
    write_events(folder, [StageStarted("prepare", time=time.time() - 1000)])
    with (folder / "events" / "prepare.jsonl").open("a") as file:
        file.write('{"stage": "prepare", "ki')


def live_run(folder: Path, steps: int = 30, **train: object) -> float:
    """Write a run whose training goes on; returns when it began. It stays alive as long as `beat` is called."""
    configure(folder, **train)
    since = time.time() - steps
    restart = WorkersRestarted("train", "a worker died", 1, time=since + 0.5)
    write_events(folder, [StageStarted("train", time=since), restart, *training(1, steps, since, slow=3.0)])
    beat(folder)
    return since


def long_run(folder: Path, epochs: int) -> None:
    """Write a finished training of many epochs."""
    configure(folder)
    since = time.time() - 50 * epochs
    events: list[Event] = [StageStarted("train", time=since)]
    for epoch in range(1, epochs + 1):
        now, loss = since + epoch, 1.0 / epoch
        events.append(TrainingProgress("train", 10 * epoch, 10 * epochs, "steps", epoch, loss, time=now))
        events.append(_epoch(epoch, loss, 1 - 1 / epoch, now))
    write_events(folder, [*events, StageFinished("train", time=since + epochs + 1)])
    beat(folder, ended=True)
