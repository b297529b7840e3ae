"""Derives the state of a run from its events and its heartbeat: alive or not, progress, time left. Knows no storage
and no page."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from alphafuse.events import (
    INTERRUPTED,
    Event,
    Metrics,
    Progress,
    StageFailed,
    StageFinished,
    StageSkipped,
    StageStarted,
)
from alphafuse.stages import STAGE_NAMES
from alphafuse.storage.ownership import Beat
from monitoring.run_log.heartbeat import LOST_SECONDS

ENDS = (StageFinished, StageSkipped, StageFailed)
SILENT_SECONDS = 900.0
"""Without a heartbeat (a workspace of another version) a run that has reported nothing for this long counts as lost."""
QUIET_SECONDS, QUIET_FACTOR = 120.0, 10.0
"""A living run is quiet if its latest event is older than so many seconds, and than so many times the usual time
between two events."""

StageStatus = Literal["waiting", "left out", "running", "finished", "failed", "cut off"]
RunStatus = Literal["running", "quiet", "lost", "stopped", "failed", "finished", "empty"]


@dataclass(frozen=True)
class StageState:
    """The state of one stage.

    Attributes:
        done, total, unit: progress of the stage; None (`unit`: empty) if unknown.
        rate: units per second, measured lately.
        remaining: seconds until `total` at this rate.
        seconds: duration of the latest run of the stage, or its time so far; a run that was skipped does not count.
        ended: time when that run finished or failed; None while it runs, and for a stage without events.
        message: why the stage failed.
    """

    name: str
    status: StageStatus
    done: float | None = None
    total: float | None = None
    unit: str = ""
    rate: float | None = None
    remaining: float | None = None
    seconds: float | None = None
    ended: float | None = None
    message: str = ""

    @property
    def share(self) -> float | None:
        """Share of `total` that is done, in [0, 1]; None if unknown."""
        if self.status == "finished":
            return 1.0
        return min(1.0, self.done / self.total) if self.done is not None and self.total else None


@dataclass(frozen=True)
class RunState:
    """The state of a whole run.

    Attributes:
        stage: the stage that has reported last; None if none has.
        latest: time of the latest event, seconds since the epoch; None if there is none.
    """

    status: RunStatus
    stages: tuple[StageState, ...]
    stage: StageState | None
    latest: float | None

    @property
    def is_alive(self) -> bool:
        return self.status in ("running", "quiet")


def judge(
    events: Mapping[str, Sequence[Event]],
    beat: Beat | None,
    now: float,
    committed: Collection[str] = (),
    borrowed: Collection[str] = (),
) -> RunState:
    """Derive the state of a run.

    Args:
        events: events of each stage, oldest first.
        beat: latest heartbeat; None if there is none.
        now: seconds since the epoch.
        committed: stages whose artefacts are finished, by which finished stages without events are known.
        borrowed: stages that another run made for this one; if only they are done, this run has not begun.
    """
    streams = {stage: events[stage] for stage in STAGE_NAMES if events.get(stage)}
    newest = max(streams, key=lambda stage: streams[stage][-1].time, default=None)
    latest = None if newest is None else streams[newest][-1].time
    alive = _is_alive(beat, streams[newest] if newest else (), now)
    begun = max((STAGE_NAMES.index(stage) for stage in streams), default=-1)
    stages = {}
    rerun_started = 0.0  # start of the latest run of the stages so far: what was made before it is to be made again
    for number, stage in enumerate(STAGE_NAMES):
        if stage in streams and streams[stage][-1].time < rerun_started:
            stages[stage] = StageState(stage, "waiting")
        elif stage in streams:
            rerun_started = max(rerun_started, _work_started(streams[stage]))
            stages[stage] = _stage(stage, streams[stage], alive and stage == newest, now)
        else:
            absent: StageStatus = "left out" if number < begun else "waiting"
            stages[stage] = StageState(stage, "finished" if stage in committed else absent)
    current = stages[newest] if newest else None
    own = [stage for stage in stages.values() if stage.name not in borrowed]
    status = _status(beat, current, alive, any(stage.status == "finished" for stage in own))
    if status == "running" and newest and current and current.status == "running" and _is_quiet(streams[newest], now):
        status = "quiet"
    return RunState(status, tuple(stages.values()), current, latest)


def _status(beat: Beat | None, current: StageState | None, alive: bool, any_finished: bool) -> RunStatus:
    if alive:
        return "running"
    if current is not None and current.status == "failed":
        return "failed"
    if beat is not None and not beat.ended:
        return "lost"
    if current is not None and current.status == "cut off":
        return "lost" if beat is None else "stopped"
    return "finished" if any_finished else "empty"


def _is_alive(beat: Beat | None, stream: Sequence[Event], now: float) -> bool:
    """Tell by the heartbeat whether a run is alive; without one, by whether the stage that reported last may run."""
    if beat is not None:
        return not beat.ended and not beat.is_dead and now - beat.time < LOST_SECONDS
    return bool(stream) and _end(_latest_run(stream)) is None and now - stream[-1].time < SILENT_SECONDS


def _is_quiet(stream: Sequence[Event], now: float) -> bool:
    times = [event.time for event in stream[-20:]]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    return now - times[-1] > max(QUIET_SECONDS, QUIET_FACTOR * statistics.median(gaps or [0.0]))


def _stage(name: str, stream: Sequence[Event], may_run: bool, now: float) -> StageState:
    latest_run = _latest_run(stream)
    started, end = latest_run[0].time, _end(latest_run)
    if isinstance(end, StageSkipped):
        before = stream[: len(stream) - len(latest_run)]
        if any(isinstance(event, StageFinished) for event in before):
            return _stage(name, before, False, now)
        return StageState(name, "finished")
    if isinstance(end, StageFinished):
        return StageState(name, "finished", seconds=end.time - started, ended=end.time)
    done, total, unit, rate = _progress(latest_run)
    if isinstance(end, StageFailed) and end.message != INTERRUPTED:
        return StageState(name, "failed", done, total, unit, None, None, end.time - started, end.time, end.message)
    if not may_run:
        return StageState(name, "cut off", done, total, unit, seconds=latest_run[-1].time - started)
    remaining = (total - done) / rate if total is not None and done is not None and rate else None
    return StageState(name, "running", done, total, unit, rate, remaining, now - started)


def _work_started(stream: Sequence[Event]) -> float:
    """Start of the latest run of a stage that was not skipped; 0 if that run has done nothing yet."""
    latest_run = latest_real_run(stream)
    works = any(isinstance(event, Progress | Metrics | StageFinished) for event in latest_run)
    return latest_run[0].time if works else 0.0


def latest_real_run(stream: Sequence[Event]) -> Sequence[Event]:
    """The events of the latest run of a stage that was not skipped."""
    latest_run = _latest_run(stream)
    skipped = any(isinstance(event, StageSkipped) for event in latest_run)
    return latest_real_run(stream[: len(stream) - len(latest_run)]) if skipped else latest_run


def _latest_run(stream: Sequence[Event]) -> Sequence[Event]:
    """The events from the last `StageStarted` on."""
    first = max((number for number, event in enumerate(stream) if isinstance(event, StageStarted)), default=0)
    return stream[first:]


def _end(latest_run: Sequence[Event]) -> Event | None:
    return next((event for event in reversed(latest_run) if isinstance(event, ENDS)), None)


def _progress(stream: Sequence[Event]) -> tuple[float | None, float | None, str, float | None]:
    """Done, total, unit and rate of the part of the stage that runs; the rate is that over its latest ten reports."""
    reports = [event for event in stream if isinstance(event, Progress)]
    if not reports:
        return None, None, "", None
    last = reports[-1]
    recent = [event for event in reports[-10:] if event.unit == last.unit]
    advance, seconds = last.done - recent[0].done, last.time - recent[0].time
    rate = advance / seconds if seconds > 0 and advance > 0 else None
    return last.done, last.total, last.unit, rate
