"""How far a run has come, read from its workspace alone: what is committed, and what its stages reported last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from alphafuse.events import Event, Value
from alphafuse.workspace import ARTIFACT_STAGES, Workspace
from monitoring.event_log import read_events

OPEN, UNFINISHED, DONE = "open", "unfinished", "done"


@dataclass(frozen=True)
class StageStatus:
    """One stage of a run.

    Attributes:
        state: `done`: all its artefacts are committed; `unfinished`: it has started and not ended; `open`: it has not
            started, or is not needed.
        done, total, unit: of its latest report of progress.
        seconds: that it has taken, up to its latest report.
        seconds_left: at the rate of its reports of progress so far; None where they do not tell. A training that stops
            early takes less.
        last_heard: when it last reported anything, in seconds since the epoch.
        failed: whether it told that it came to an end before it had finished.
        metrics: its latest values, by name.
        warnings: what it warned of since it has started.
    """

    stage: str
    state: str
    done: float | None = None
    total: float | None = None
    unit: str | None = None
    seconds: float | None = None
    seconds_left: float | None = None
    last_heard: float | None = None
    failed: bool = False
    metrics: dict[str, float] | None = None
    warnings: tuple[str, ...] = ()


def run_status(workspace: Workspace) -> list[StageStatus]:
    """All stages, in their order."""
    artifacts: dict[str, list[str]] = {}
    for name, stage in ARTIFACT_STAGES.items():
        artifacts.setdefault(stage, []).append(name)
    return [
        stage_status(
            stage,
            all(workspace.artifact(name).manifest() is not None for name in names),
            read_events(workspace, stage),
        )
        for stage, names in artifacts.items()
    ]


def stage_status(stage: str, committed: bool, events: Sequence[Event]) -> StageStatus:
    """One stage, of which all artefacts are there or not, and which has reported some events over all its runs."""
    latest = list(takewhile(lambda event: event.kind != "started", reversed(events)))[::-1]
    started = next((event.time for event in reversed(events) if event.kind == "started"), None)
    if started is None:
        return StageStatus(stage, DONE if committed else OPEN)
    ended = any(event.kind in ("finished", "skipped") for event in latest)
    failed = any(event.kind == "failed" for event in latest)
    progress = [event for event in latest if event.kind == "progress"]
    last = progress[-1].values if progress else {}
    metrics = next((event.values for event in reversed(latest) if event.kind == "metrics"), None)
    heard = latest[-1].time if latest else started
    state = DONE if committed else OPEN if ended else UNFINISHED
    return StageStatus(
        stage,
        # A stage that is redone is at work although what it made before is still there.
        UNFINISHED if not ended else state,
        done=_number(last.get("done")),
        total=_number(last.get("total")),
        unit=None if not progress else str(last.get("unit")),
        seconds=heard - started,
        seconds_left=None if ended or failed else _seconds_left(progress),
        last_heard=heard,
        failed=failed,
        metrics=None if metrics is None else _numbers(metrics),
        warnings=tuple(str(event.values["message"]) for event in latest if event.kind in ("warning", "restart")),
    )


def _seconds_left(progress: Sequence[Event]) -> float | None:
    """At the rate between the first and the last report of what is being counted now."""
    if not progress:
        return None
    unit = progress[-1].values.get("unit")
    counted = list(takewhile(lambda event: event.values.get("unit") == unit, reversed(progress)))[::-1]
    done, total = _number(counted[-1].values.get("done")), _number(counted[-1].values.get("total"))
    first = _number(counted[0].values.get("done"))
    elapsed = counted[-1].time - counted[0].time
    if done is None or total is None or first is None or done <= first or elapsed <= 0:
        return None
    return (total - done) * elapsed / (done - first)


def _numbers(values: Mapping[str, Value]) -> dict[str, float]:
    return {name: number for name, value in values.items() if (number := _number(value)) is not None}


def _number(value: Value) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)
