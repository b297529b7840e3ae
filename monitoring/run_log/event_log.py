"""Writes and reads the event log of a workspace: one file per stage, `events/STAGE.jsonl`, for reports and dashboards.

Object stores cannot append, so the whole file of a stage is written again for each event that is kept. Progress is kept
only now and then. Events of single steps and batches are not kept: they go into the metrics of their process.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from alphafuse import events as e
from alphafuse.events import Event
from alphafuse.storage.manifest import read_json_object
from alphafuse.storage.workspace import Workspace

SUFFIX = ".jsonl"
PROGRESS_SECONDS = 10.0
CHECKED = re.compile(rb'\{"crc": "([0-9a-f]{8})", ')
"""Beginning of a line: the CRC-32 of all that follows. Lines of earlier versions have none."""
KINDS: dict[str, tuple[type[Event], ...]] = {
    "started": (e.StageStarted,),
    "progress": (e.TrainingProgress, e.EmbeddingProgress, e.Progress),
    "validating": (e.ValidationProgress,),
    "metrics": (e.EpochMetrics, e.Metrics),
    "worker": (e.StepMeans,),
    "warning": (e.StageWarning,),
    "restart": (e.WorkersRestarted,),
    "checkpoint": (e.CheckpointWritten,),
    "artifact": (e.ArtifactCommitted,),
    "finished": (e.StageFinished,),
    "skipped": (e.StageSkipped,),
    "failed": (e.StageFailed,),
}
"""The name of each event class in a file. A record of a name that several classes share is read as the first of them
whose required fields it has."""
VALIDATORS: dict[type[Event], TypeAdapter[Event]] = {cls: TypeAdapter(cls) for cs in KINDS.values() for cls in cs}
"""They check the types of fields, which a damaged file may fill with anything."""
NAMES = {cls: kind for kind, classes in KINDS.items() for cls in classes}


class EventLog:
    """Listener that keeps events in the log.

    Progress of a stage is kept once in `PROGRESS_SECONDS`, and at its end. The means of a worker's steps are kept once
    in `PROGRESS_SECONDS`, too; they come into the file with the next event of another kind.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lines: dict[str, list[bytes]] = {}
        self._kept: dict[tuple[str, int | None], float] = {}

    def __call__(self, event: Event) -> None:
        if type(event) not in NAMES or not self._is_due(event):
            return
        if event.stage not in self._lines:
            self._lines[event.stage] = _lines(self._workspace, event.stage)  # damaged ones are kept as they are
        lines = self._lines[event.stage]
        lines.append(to_line(event))
        if not isinstance(event, e.StepMeans):
            self._write(event.stage)

    def take_back(self, stage: str) -> None:
        """Remove the latest run of a stage from the log, as if it had not begun."""
        lines = self._lines.get(stage, [])
        started = [number for number, line in enumerate(lines) if isinstance(_event_or_none(line), e.StageStarted)]
        if started:
            del lines[started[-1] :]
            self._write(stage)

    def _write(self, stage: str) -> None:
        """Replace the file of a stage.

        Raises:
            OwnershipError: another process owns the workspace by now, whose events would be lost.
        """
        if self._workspace.guard is not None:
            self._workspace.guard.require()
        if lines := self._lines[stage]:
            self._workspace.events.write_bytes(f"{stage}{SUFFIX}", b"\n".join([*lines, b""]))
        else:
            self._workspace.events.delete_files([f"{stage}{SUFFIX}"])

    def _is_due(self, event: Event) -> bool:
        """Tell whether to keep an event: progress and means of steps are kept only now and then."""
        if not isinstance(event, e.Progress | e.StepMeans):
            return True
        key = event.stage, event.rank if isinstance(event, e.StepMeans) else None
        finished = isinstance(event, e.Progress) and event.done == event.total
        if not finished and event.time - self._kept.get(key, 0) < PROGRESS_SECONDS:
            return False
        self._kept[key] = event.time
        return True


def read_events(workspace: Workspace, stage: str) -> list[Event]:
    """Return the events of a stage over all its runs, oldest first; an empty list if it has not run. Damaged lines are
    left out (see `scan_events`)."""
    return scan_events(workspace, stage)[0]


def scan_events(workspace: Workspace, stage: str) -> tuple[list[Event], dict[int, str]]:
    """The events of a stage, oldest first, and what is wrong with damaged lines, by the number of the line from 1.

    Events of a kind that this version does not know are left out.
    """
    events, faults = [], {}
    for number, line in enumerate(_lines(workspace, stage), start=1):
        try:
            event = from_line(line)
            if event is not None and event.stage != stage:
                raise ValueError(f"an event of the stage {event.stage!r}")
        except ValueError as error:
            faults[number] = str(error)
        else:
            if event is not None:
                events.append(event)
    return events, faults


def _event_or_none(line: bytes) -> Event | None:
    try:
        return from_line(line)
    except ValueError:
        return None


def describe_damage(faults: Mapping[int, str], done: str = "") -> str:
    """Say how many lines of a log are damaged, what is done about them, and what is wrong with the first.

    Args:
        faults: see `scan_events`; at least one.
    """
    number, fault = next(iter(faults.items()))
    return f"{len(faults)} damaged lines{done}, the first is line {number}: {fault}"


def drop_damaged_lines(workspace: Workspace, stage: str, faults: Mapping[int, str]) -> None:
    """Write the log of a stage again without its damaged lines, the `faults` of `scan_events`."""
    lines = _lines(workspace, stage)
    kept = [line for number, line in enumerate(lines, start=1) if number not in faults]
    workspace.events.write_bytes(f"{stage}{SUFFIX}", b"\n".join([*kept, b""]))


def _lines(workspace: Workspace, stage: str) -> list[bytes]:
    folder, name = workspace.events, f"{stage}{SUFFIX}"
    return folder.read_bytes(name).splitlines() if folder.exists(name) else []


def to_line(event: Event) -> bytes:
    """Turn an event into a line of the log: a JSON object, which begins with the checksum of the rest of the line."""
    rest = json.dumps(to_record(event)).encode()[1:]
    return b'{"crc": "%08x", %s' % (zlib.crc32(rest), rest)


def from_line(line: bytes) -> Event | None:
    """Turn a line back into its event; None if the event is of a kind that this version does not know.

    Raises:
        ValueError: the line is damaged.
    """
    checked = CHECKED.match(line)
    if checked is not None and zlib.crc32(line[checked.end() :]) != int(checked[1], 16):
        raise ValueError("its content differs from its checksum")
    return from_record(read_json_object(line))


def to_record(event: Event) -> dict[str, Any]:
    """Turn an event into a record: `stage`, `kind`, `values` (flat, without optional ones that are None) and `time`."""
    values: dict[str, Any] = {}
    for entry in _own_fields(type(event)):
        value = getattr(event, entry.name)
        if not entry.metadata.get("open") and (value is not None or entry.default is not None):
            values[entry.name] = value
    for entry in _own_fields(type(event)):
        if entry.metadata.get("open"):
            values |= getattr(event, entry.name)
    return {"stage": event.stage, "kind": NAMES[type(event)], "values": values, "time": event.time}


def from_record(record: object) -> Event | None:
    """Turn a record back into its event; None if the event is of a kind that this version does not know.

    Raises:
        ValueError: the record is not one of an event.
    """
    if not isinstance(record, dict) or not isinstance(values := record.get("values"), dict):
        raise ValueError(f"not an event: {record!r}"[:200])
    stage, kind, time = record.get("stage"), record.get("kind"), record.get("time")
    if not isinstance(stage, str) or not isinstance(time, int | float) or not math.isfinite(time):
        raise ValueError(f"not an event: {record!r}"[:200])
    if kind not in KINDS:
        return None
    for cls in KINDS[kind]:
        if all(entry.name in values for entry in _own_fields(cls) if _is_required(entry)):
            return VALIDATORS[cls].validate_python({"stage": stage, **_arguments(cls, values), "time": time})
    raise ValueError(f"an event {kind!r} lacks values: {record!r}"[:200])


def _own_fields(cls: type[Event]) -> list[dataclasses.Field[Any]]:
    return [entry for entry in dataclasses.fields(cls) if entry.name not in ("stage", "time")]


def _is_required(entry: dataclasses.Field[Any]) -> bool:
    return entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING


def _arguments(cls: type[Event], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values by field. Values without a field go into the open field, or are left out if the class has none."""
    fields = _own_fields(cls)
    named = {entry.name: values[entry.name] for entry in fields if entry.name in values}
    others = {name: value for name, value in values.items() if name not in named}
    return named | {entry.name: others for entry in fields if entry.metadata.get("open")}
