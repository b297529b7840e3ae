"""How far a run has come, from made-up events with round times."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_workspace import tiny_workspace

from alphafuse.events import Event
from monitoring.event_log import EventLog
from monitoring.status import DONE, OPEN, UNFINISHED, run_status, stage_status


def event(kind: str, time: float, **values: float | str) -> Event:
    return Event("train", kind, values, time)


def progress(time: float, done: float, total: float = 100, unit: str = "steps") -> Event:
    return event("progress", time, done=done, total=total, unit=unit)


@pytest.mark.parametrize(
    ("committed", "events", "state"),
    [
        (False, [], OPEN),
        (True, [], DONE),
        (False, [event("started", 0)], UNFINISHED),
        (True, [event("started", 0), event("finished", 9)], DONE),
        (True, [event("started", 0), event("finished", 9), event("started", 20)], UNFINISHED),
        (True, [event("started", 0), event("skipped", 1)], DONE),
        (False, [event("started", 0), progress(5, 1), event("failed", 9, message="interrupted")], UNFINISHED),
        (False, [event("started", 0), event("finished", 9)], OPEN),  # what it made is gone
    ],
)
def test_states(committed: bool, events: list[Event], state: str) -> None:
    assert stage_status("train", committed, events).state == state


def test_time_left_is_at_the_rate_since_the_stage_went_on() -> None:
    events = [event("started", 0), progress(10, 50), event("started", 100), progress(110, 60), progress(130, 70)]
    status = stage_status("train", False, events)
    assert (status.done, status.total, status.unit) == (70, 100, "steps")
    assert status.seconds_left == pytest.approx(60)  # 30 steps at 10 in 20 seconds
    assert status.seconds == 30
    assert status.last_heard == 130


def test_time_left_counts_what_is_counted_now() -> None:
    events = [event("started", 0), progress(5, 0, 10, "files"), progress(10, 10, 10, "files")]
    events += [progress(20, 10, 100, "items"), progress(30, 20, 100, "items")]
    assert stage_status("train", False, events).seconds_left == pytest.approx(80)


@pytest.mark.parametrize(
    "events",
    [
        [event("started", 0)],
        [event("started", 0), progress(10, 5)],
        [event("started", 0), progress(10, 5), progress(20, 5)],
        [event("started", 0), event("progress", 10, done=1, unit="users"), event("progress", 20, done=2, unit="users")],
    ],
)
def test_time_left_is_unknown_where_nothing_tells(events: list[Event]) -> None:
    assert stage_status("train", False, events).seconds_left is None


def test_latest_metrics_and_warnings_of_this_start() -> None:
    events = [event("warning", 0, message="old"), event("started", 1), event("metrics", 2, epoch=1, loss=0.5)]
    events += [event("warning", 3, message="a machine is gone"), event("metrics", 4, epoch=2, loss=0.0)]
    status = stage_status("train", False, events)
    assert status.metrics == {"epoch": 2, "loss": 0}
    assert status.warnings == ("a machine is gone",)


def test_all_stages_of_a_workspace_in_their_order(tmp_path: Path) -> None:
    workspace = tiny_workspace(tmp_path / "run")
    log = EventLog(workspace)
    log(Event("train", "started", {}, 5.0))
    stages = {status.stage: status.state for status in run_status(workspace)}
    assert list(stages) == ["prepare", "embed", "decompose", "train", "evaluate", "recommend", "export", "report"]
    assert stages["prepare"] == stages["decompose"] == DONE
    assert stages["train"] == UNFINISHED
    assert stages["evaluate"] == OPEN
