"""Workspaces as runs leave them, in every state that the dashboard tells apart."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

import yaml
from support.finished_workspace import finished_workspace
from support.tiny_workspace import tiny_config

from alphafuse.events import Event

EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


def write_events(folder: Path, events: Iterable[Event]) -> None:
    """As the event log writes them, but all at once: it thins what comes close together, and writes a file anew for
    each event."""
    (folder / "events").mkdir(parents=True, exist_ok=True)
    for event in events:
        line = {"stage": event.stage, "kind": event.kind, "values": dict(event.values), "time": event.time}
        with (folder / "events" / f"{event.stage}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def beat(folder: Path, age: float = 0.0, ended: bool = False) -> None:
    """A heartbeat of `age` seconds ago."""
    (folder / "events").mkdir(parents=True, exist_ok=True)
    content = json.dumps({"time": time.time() - age, "ended": ended})
    # As runs do, whole or not at all: somebody may read it at any moment.
    written = folder / "events" / "heartbeat.json.new"
    written.write_text(content)
    written.replace(folder / "events" / "heartbeat.json")


def configure(folder: Path, **train: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    settings = tiny_config(folder, **train).model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))


def training(first: int, last: int, since: float, workers: int = 2, slow: float = 1.0) -> list[Event]:
    """Steps of a training from one step to another, one a second; an epoch is ten steps.

    Args:
        slow: how many times as long the own work of the last rank takes.
    """
    events = []
    for step in range(first, last + 1):
        now = since + step
        for rank in range(workers):
            own = 0.05 * (slow if rank == workers - 1 else 1.0)
            parts = {"data": 0.01, "lookup": own, "forward": 0.02, "backward": 0.04, "optimizer": 0.01}
            total = 0.05 * slow + 0.1
            values = {f"{name}_seconds": seconds for name, seconds in parts.items()}
            values |= {"exchange_seconds": total - sum(parts.values()), "seconds": total}
            counts = {"samples_per_second": 64 / total, "rows_served": 900, "bytes_sent": 5e5, "memory_bytes": 7e8}
            told = {"rank": rank, "world_size": workers, "step": step, "host": EVIL, **values, **counts}
            events.append(Event("train", "worker", told, now))
        loss = {"loss": 8.0 / (1 + step) ** 0.2, "samples_per_second": 64 * workers / 0.15, "epoch": 1 + step // 10}
        events.append(Event("train", "progress", {"done": step, "total": 400, "unit": "steps", **loss}, now))
        if step % 10 == 0:
            metrics = {"split": "validation", "epoch": step // 10, "loss": loss["loss"], "ndcg@20": 0.1 + step / 1e4}
            events.append(Event("train", "metrics", metrics, now))
    return events


def finished_run(folder: Path) -> None:
    """All stages are done; its texts are hostile."""
    config, _ = finished_workspace(folder, EVIL)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    for log in (folder / "events").iterdir():
        log.unlink()
    since = time.time() - 3600
    write_events(folder, [Event("train", "started", {}, since), *training(1, 60, since)])
    write_events(folder, [Event("train", "finished", {"epochs": 6}, since + 61)])
    write_events(folder, [Event("evaluate", "started", {}, since + 62)])
    write_events(folder, [Event("evaluate", "metrics", {"split": "test", "ndcg@20": 0.125}, since + 63)])
    write_events(
        folder, [Event("evaluate", "finished", {"queries": 7, "seen_items": "left out", "ndcg@20": 0.125}, since + 64)]
    )
    beat(folder, age=3500, ended=True)


def failed_run(folder: Path) -> None:
    configure(folder)
    since = time.time() - 600
    write_events(folder, [Event("embed", "started", {}, since)])
    write_events(folder, [Event("embed", "failed", {"message": f"no model {EVIL} is here"}, since + 5)])
    beat(folder, age=590, ended=True)


def lost_run(folder: Path) -> None:
    """Its process was killed in the 20th step."""
    configure(folder)
    since = time.time() - 1200
    write_events(folder, [Event("train", "started", {}, since), *training(1, 20, since)])
    beat(folder, age=1180)


def half_written_run(folder: Path) -> None:
    """A copy caught it as it began: a line is cut off, and an artefact has no manifest yet."""
    configure(folder)
    (folder / "catalog").mkdir()
    (folder / "catalog" / "part-00000.parquet").write_bytes(b"PAR1")
    write_events(folder, [Event("prepare", "started", {}, time.time() - 1000)])
    with (folder / "events" / "prepare.jsonl").open("a") as file:
        file.write('{"stage": "prepare", "ki')


def live_run(folder: Path, steps: int = 30, **train: object) -> float:
    """A training goes on; returns when it began. To be kept alive with `beat`."""
    configure(folder, **train)
    since = time.time() - steps
    restart = Event("train", "restart", {"restarts": 1, "message": "a worker died"}, since + 0.5)
    write_events(folder, [Event("train", "started", {}, since), restart, *training(1, steps, since, slow=3.0)])
    beat(folder)
    return since


def long_run(folder: Path, epochs: int) -> None:
    configure(folder)
    since = time.time() - 50 * epochs
    events = [Event("train", "started", {}, since)]
    for epoch in range(1, epochs + 1):
        values = {"done": 10 * epoch, "total": 10 * epochs, "unit": "steps", "loss": 1.0 / epoch}
        events.append(Event("train", "progress", values, since + epoch))
        metrics = {"split": "validation", "epoch": epoch, "loss": 1.0 / epoch, "ndcg@20": 1 - 1 / epoch}
        events.append(Event("train", "metrics", metrics, since + epoch))
    write_events(folder, [*events, Event("train", "finished", {}, since + epochs + 1)])
    beat(folder, ended=True)
