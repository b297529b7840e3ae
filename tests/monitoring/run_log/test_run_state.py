"""The state of runs from hand-made events: each case has the events, and the expected state."""

from __future__ import annotations

import dataclasses

import pytest

from alphafuse.events import Event, Progress, StageFailed, StageFinished, StageSkipped, StageStarted
from alphafuse.storage.ownership import Beat, beat_of_this_process
from monitoring.run_log.run_state import RunState, judge

NOW = 10_000.0
HERE = beat_of_this_process("token", "")


def _events(*entries: tuple[str, str, float]) -> dict[str, list[Event]]:
    """Events from stage, kind and age in seconds."""
    events: dict[str, list[Event]] = {}
    for stage, kind, age in entries:
        time = NOW - age
        event = {
            "started": StageStarted(stage, time=time),
            "progress": Progress(stage, 1, None, "rows", time=time),
            "finished": StageFinished(stage, time=time),
            "skipped": StageSkipped(stage, time=time),
            "failed": StageFailed(stage, "no memory", time=time),
        }[kind]
        events.setdefault(stage, []).append(event)
    return events


def _stages(state: RunState) -> dict[str, str]:
    return {stage.name: stage.status for stage in state.stages}


PREPARED = (("prepare", "started", 90.0), ("prepare", "finished", 80.0))


@pytest.mark.parametrize(
    ("entries", "beat", "status", "stages"),
    [
        pytest.param((), None, "empty", {"prepare": "waiting", "train": "waiting"}, id="nothing"),
        pytest.param((), Beat(NOW - 5, False), "running", {}, id="about to begin"),
        pytest.param(
            (*PREPARED, ("train", "started", 70.0)), Beat(NOW - 5, False), "running",
            {"prepare": "finished", "embed": "left out", "train": "running", "evaluate": "waiting"}, id="runs",
        ),
        pytest.param(PREPARED, Beat(NOW - 5, False), "running", {"prepare": "finished"}, id="between two stages"),
        pytest.param(
            (("train", "started", 800.0), ("train", "progress", 700.0)), Beat(NOW - 5, False), "running",
            {"train": "running"}, id="its reports are far apart",
        ),
        pytest.param(
            (("train", "started", 801.0), ("train", "progress", 800.0)), Beat(NOW - 5, False), "quiet",
            {"train": "running"}, id="its reports were close together",
        ),
        pytest.param(
            (("train", "started", 200.0), ("train", "progress", 190.0)), Beat(NOW - 180, False), "lost",
            {"train": "cut off"}, id="killed",
        ),
        pytest.param(
            (("train", "started", 20.0),), dataclasses.replace(HERE, time=NOW - 5), "running", {"train": "running"},
            id="a process of this machine",
        ),
        pytest.param(
            (("train", "started", 20.0),), dataclasses.replace(HERE, time=NOW - 5, born=HERE.born + 1), "lost",
            {"train": "cut off"}, id="a process of this machine that was killed a moment ago",
        ),
        pytest.param(PREPARED, Beat(NOW - 70, False), "lost", {"prepare": "finished"}, id="killed between stages"),
        pytest.param(
            (("train", "started", 200.0),), Beat(NOW - 10, True), "stopped", {"train": "cut off"}, id="ended unheard",
        ),
        pytest.param(
            (("train", "started", 200.0), ("train", "failed", 100.0)), Beat(NOW - 99, True), "failed",
            {"train": "failed"}, id="failed",
        ),
        pytest.param(
            (("train", "started", 300.0), ("train", "failed", 200.0), ("train", "started", 20.0)),
            Beat(NOW - 5, False), "running", {"train": "running"}, id="failed and tried again",
        ),
        pytest.param(PREPARED, Beat(NOW - 70, True), "finished", {"prepare": "finished"}, id="done"),
        pytest.param(PREPARED, None, "finished", {"prepare": "finished"}, id="done, without a heartbeat"),
        pytest.param((("train", "started", 100.0),), None, "running", {"train": "running"}, id="no heartbeat"),
        pytest.param((("train", "started", 1000.0),), None, "lost", {"train": "cut off"}, id="no heartbeat, silent"),
        pytest.param(
            (("train", "started", 900.0), ("evaluate", "started", 50.0)), Beat(NOW - 5, False), "running",
            {"train": "cut off", "evaluate": "running"}, id="a later stage after a killed one",
        ),
    ],
)  # fmt: skip
def test_states(
    entries: tuple[tuple[str, str, float], ...], beat: Beat | None, status: str, stages: dict[str, str]
) -> None:
    state = judge(_events(*entries), beat, NOW)
    assert state.status == status
    assert stages.items() <= _stages(state).items()


def test_artefacts_tell_of_stages_without_events() -> None:
    state = judge({}, None, NOW, {"prepare", "embed"})
    assert state.status == "finished"
    assert {name for name, status in _stages(state).items() if status == "finished"} == {"prepare", "embed"}


def test_a_run_has_not_begun_where_others_made_what_is_there() -> None:
    state = judge({}, None, NOW, {"prepare", "embed"}, borrowed={"prepare", "embed"})
    assert state.status == "empty"
    assert {name for name, status in _stages(state).items() if status == "finished"} == {"prepare", "embed"}
    assert judge({}, None, NOW, {"prepare", "train"}, borrowed={"prepare"}).status == "finished"


def test_what_follows_from_a_stage_that_is_made_again_is_to_come() -> None:
    events = _events(*PREPARED, ("train", "started", 79.0), ("train", "finished", 70.0), ("evaluate", "started", 69.0))
    events["evaluate"] += _events(("evaluate", "finished", 60.0))["evaluate"]
    again = _events(("train", "started", 20.0))["train"]
    events["train"] += again
    assert _stages(judge(events, Beat(NOW, False), NOW))["evaluate"] == "finished"  # it may be skipped
    events["train"] += _events(("train", "progress", 10.0))["train"]
    assert _stages(judge(events, Beat(NOW, False), NOW))["evaluate"] == "waiting"
    skipped = _events(("train", "finished", 9.0), ("train", "started", 5.0), ("train", "skipped", 4.0))
    events["train"] += skipped["train"]
    assert _stages(judge(events, Beat(NOW, True), NOW))["evaluate"] == "waiting"
    events["evaluate"] += _events(("evaluate", "started", 3.0), ("evaluate", "finished", 2.0))["evaluate"]
    assert _stages(judge(events, Beat(NOW, True), NOW))["evaluate"] == "finished"


def test_rate_and_remaining_time_are_those_of_the_part_that_runs() -> None:
    events: list[Event] = [StageStarted("embed", time=NOW - 100)]
    events += [Progress("embed", 9, 9, "shards", time=NOW - 90)]
    events += [Progress("embed", done, 1000, "texts", time=NOW - 50 + done / 10) for done in (100, 200, 400)]
    stage = judge({"embed": events}, Beat(NOW, False), NOW).stage
    assert stage is not None
    assert (stage.done, stage.total, stage.unit, stage.share) == (400, 1000, "texts", 0.4)
    assert stage.rate == pytest.approx(10.0)
    assert stage.remaining == pytest.approx(60.0)
    assert stage.seconds == pytest.approx(100.0)


def test_a_skipped_stage_keeps_the_time_that_it_took() -> None:
    events = _events(("train", "started", 500.0), ("train", "finished", 440.0))
    events["train"] += _events(("train", "started", 5.0), ("train", "skipped", 4.0))["train"]
    stage = judge(events, Beat(NOW, True), NOW).stage
    assert stage is not None
    assert (stage.status, stage.seconds, stage.ended) == ("finished", 60.0, NOW - 440)


def test_a_run_that_somebody_ended_has_not_failed() -> None:
    events = [StageStarted("train", time=NOW - 9), StageFailed("train", "interrupted", time=NOW - 5)]
    state = judge({"train": events}, Beat(NOW - 4, True), NOW)
    assert (state.status, _stages(state)["train"]) == ("stopped", "cut off")


def test_a_failure_keeps_its_message() -> None:
    stage = judge(_events(("train", "started", 9.0), ("train", "failed", 5.0)), Beat(NOW, True), NOW).stage
    assert stage is not None
    assert (stage.message, stage.seconds) == ("no memory", 4.0)
