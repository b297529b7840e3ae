"""Keeps the events of every stage in the workspace, `events/STAGE.jsonl`, for reports and dashboards.

Object stores cannot append, so a stage's file is written anew: at once for what matters, now and then for progress.
Single steps are left out; they are in the metrics of their worker.
"""

from __future__ import annotations

import dataclasses
import json

from alphafuse.events import Event, Value
from alphafuse.storage.workspace import Workspace

PROGRESS_SECONDS = 10.0
LEFT_OUT = ("step", "batch")


class EventLog:
    """A listener. Of progress events only one in `PROGRESS_SECONDS` and the last of a stage are kept, of what a worker
    tells about its steps as many; the latter come into the file with the next event that is kept."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lines: dict[str, list[str]] = {}
        self._kept: dict[tuple[str, Value], float] = {}

    def __call__(self, event: Event) -> None:
        if event.kind in LEFT_OUT or not self._is_due(event):
            return
        if event.stage not in self._lines:
            self._lines[event.stage] = [_line(earlier) for earlier in read_events(self._workspace, event.stage)]
        lines = self._lines[event.stage]
        lines.append(_line(event))
        if event.kind != "worker":
            (self._workspace.folder / "events").write_bytes(f"{event.stage}.jsonl", "\n".join([*lines, ""]).encode())

    def _is_due(self, event: Event) -> bool:
        """Whether to keep an event, of those of one worker or those of progress."""
        if event.kind not in ("progress", "worker"):
            return True
        key = event.stage, event.values.get("rank")
        finished = event.kind == "progress" and event.values["done"] == event.values.get("total")
        if not finished and event.time - self._kept.get(key, 0) < PROGRESS_SECONDS:
            return False
        self._kept[key] = event.time
        return True


def read_events(workspace: Workspace, stage: str) -> list[Event]:
    """The events of a stage over all its runs, oldest first; none where it has not run."""
    folder, name = workspace.folder / "events", f"{stage}.jsonl"
    if not folder.exists(name):
        return []
    return [Event(**json.loads(line)) for line in folder.read_bytes(name).decode().splitlines()]


def _line(event: Event) -> str:
    return json.dumps({**dataclasses.asdict(event), "values": dict(event.values)})
