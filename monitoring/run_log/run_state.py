"""What the events of a run say about its state: alive or not, how far, how long still. Knows no storage and no page."""

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
from monitoring.run_log.heartbeat import LOST_SECONDS, Beat

ENDS = (StageFinished, StageSkipped, StageFailed)
SILENT_SECONDS = 900.0
"""Without a heartbeat (a workspace of another version) a run that has told nothing for this long counts as lost."""
QUIET_SECONDS, QUIET_FACTOR = 120.0, 10.0
"""A living run is quiet when its latest event is older than both: seconds, and times the usual distance of two."""

StageStatus = Literal["waiting", "left out", "running", "finished", "failed", "cut off"]
RunStatus = Literal["running", "quiet", "lost", "stopped", "failed", "finished", "empty"]


@dataclass(frozen=True)
class StageState:
    """One stage.

    Attributes:
        done, total, unit: of its progress; None where unknown.
        rate: units per second, lately.
        remaining: seconds until `total` at this rate.
        seconds: that its latest run took, or has taken so far; a run that was skipped does not count.
        ended: when that run finished or failed; None while it runs, and for a stage without events.
        message: why it failed.
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
        """Of `total`, in [0, 1]; None where unknown."""
        if self.status == "finished":
            return 1.0
        return min(1.0, self.done / self.total) if self.done is not None and self.total else None


@dataclass(frozen=True)
class RunState:
    """A whole run.

    Attributes:
        stage: the one that has told something last; None where none has.
        latest: time of the latest event; None where there is none.
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
    """The state of a run.

    Args:
        events: of each stage, oldest first.
        now: seconds since the epoch.
        committed: stages whose artefacts are there, which tells of stages without events.
        borrowed: stages that another run made for this one: that they are done does not mean that this one has begun.
    """
    streams = {stage: events[stage] for stage in STAGE_NAMES if events.get(stage)}
    newest = max(streams, key=lambda stage: streams[stage][-1].time, default=None)
    latest = None if newest is None else streams[newest][-1].time
    alive = _is_alive(beat, streams[newest] if newest else (), now)
    begun = max((STAGE_NAMES.index(stage) for stage in streams), default=-1)
    stages = {}
    made_anew = 0.0  # when an earlier stage began to be made again: what follows from it is to be made again, too
    for number, stage in enumerate(STAGE_NAMES):
        if stage in streams and streams[stage][-1].time < made_anew:
            stages[stage] = StageState(stage, "waiting")
        elif stage in streams:
            made_anew = max(made_anew, _made_since(streams[stage]))
            stages[stage] = _stage(stage, streams[stage], alive and stage == newest, now)
        else:
            absent: StageStatus = "left out" if number < begun else "waiting"
            stages[stage] = StageState(stage, "finished" if stage in committed else absent)
    telling = stages[newest] if newest else None
    own = [stage for stage in stages.values() if stage.name not in borrowed]
    status = _status(beat, telling, alive, any(stage.status == "finished" for stage in own))
    if status == "running" and newest and telling and telling.status == "running" and _is_quiet(streams[newest], now):
        status = "quiet"
    return RunState(status, tuple(stages.values()), telling, latest)


def _status(beat: Beat | None, telling: StageState | None, alive: bool, any_finished: bool) -> RunStatus:
    if alive:
        return "running"
    if telling is not None and telling.status == "failed":
        return "failed"
    if beat is not None and not beat.ended:
        return "lost"
    if telling is not None and telling.status == "cut off":
        return "lost" if beat is None else "stopped"
    return "finished" if any_finished else "empty"


def _is_alive(beat: Beat | None, stream: Sequence[Event], now: float) -> bool:
    """By the heartbeat; without one, by whether the stage that has told something last may still run."""
    if beat is not None:
        return not beat.ended and now - beat.time < LOST_SECONDS
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


def _made_since(stream: Sequence[Event]) -> float:
    """When the latest run of a stage began that has done something; 0 where none has."""
    latest_run = latest_real_run(stream)
    works = any(isinstance(event, Progress | Metrics | StageFinished) for event in latest_run)
    return latest_run[0].time if works else 0.0


def latest_real_run(stream: Sequence[Event]) -> Sequence[Event]:
    """The events of the latest run of a stage that was not skipped."""
    latest_run = _latest_run(stream)
    skipped = any(isinstance(event, StageSkipped) for event in latest_run)
    return latest_real_run(stream[: len(stream) - len(latest_run)]) if skipped else latest_run


def _latest_run(stream: Sequence[Event]) -> Sequence[Event]:
    """From the last "started" on."""
    first = max((number for number, event in enumerate(stream) if isinstance(event, StageStarted)), default=0)
    return stream[first:]


def _end(latest_run: Sequence[Event]) -> Event | None:
    return next((event for event in reversed(latest_run) if isinstance(event, ENDS)), None)


def _progress(stream: Sequence[Event]) -> tuple[float | None, float | None, str, float | None]:
    """Done, total, unit and rate of the part of the stage that runs; the rate is that of its latest ten events."""
    told = [event for event in stream if isinstance(event, Progress)]
    if not told:
        return None, None, "", None
    last = told[-1]
    recent = [event for event in told[-10:] if event.unit == last.unit]
    advance, seconds = last.done - recent[0].done, last.time - recent[0].time
    rate = advance / seconds if seconds > 0 and advance > 0 else None
    return last.done, last.total, last.unit, rate
