"""The event log: what is kept, over several runs, on any storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from alphafuse.events import Event
from alphafuse.storage.workspace import Workspace
from monitoring.run_log.event_log import PROGRESS_SECONDS, EventLog, read_events


def _progress(done: int, time: float) -> Event:
    return Event("embed", "progress", {"done": done, "total": 9, "unit": "texts"}, time)


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_events_of_all_runs_come_back_in_order(tmp_path: Path, scheme: str) -> None:
    workspace = Workspace(f"{scheme}{tmp_path}")
    first = [Event("embed", "started", {}, 1.0), Event("embed", "warning", {"message": "«odd»\nline"}, 2.0)]
    other = Event("train", "metrics", {"epoch": 1, "loss": 0.5, "ok": True, "none": None}, 3.0)
    log = EventLog(workspace)
    for event in (*first, other):
        log(event)
    again = Event("embed", "started", {}, 4.0)
    EventLog(workspace)(again)
    assert read_events(workspace, "embed") == [*first, again]
    assert read_events(workspace, "train") == [other]
    assert read_events(workspace, "report") == []


def test_progress_is_thinned_but_its_end_is_kept(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    log = EventLog(workspace)
    events = [_progress(done, 100 + done * PROGRESS_SECONDS / 4) for done in range(1, 10)]
    for event in events:
        log(event)
    assert [event.values["done"] for event in read_events(workspace, "embed")] == [1, 5, 9]
    log(_progress(8, events[-1].time + 0.1))
    log(_progress(9, events[-1].time + 0.2))
    assert [event.values["done"] for event in read_events(workspace, "embed")] == [1, 5, 9, 9]


def test_every_worker_is_kept_now_and_then_and_single_steps_are_not(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    log = EventLog(workspace)
    workers = [
        Event("train", "worker", {"rank": rank, "step": step}, 100 + step * PROGRESS_SECONDS / 2)
        for step in range(1, 5)
        for rank in (0, 1)
    ]
    log(Event("train", "step", {"rank": 0, "seconds": 0.1}, 99.0))
    for event in workers:
        log(event)
    assert read_events(workspace, "train") == []  # until something else is worth writing the file
    log(Event("train", "metrics", {"epoch": 1}, 200.0))
    kept = [(event.values["step"], event.values["rank"]) for event in read_events(workspace, "train")[:-1]]
    assert kept == [(1, 0), (1, 1), (3, 0), (3, 1)]
