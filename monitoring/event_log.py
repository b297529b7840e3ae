"""Keeps the events of every stage in the workspace, `events/STAGE.jsonl`, for reports and dashboards.

Object stores cannot append, so a stage's file is written anew: at once for what matters, now and then for progress.
"""

from __future__ import annotations

import dataclasses
import json

from alphafuse.events import Event
from alphafuse.workspace import Workspace

PROGRESS_SECONDS = 10.0


class EventLog:
    """A listener. Of progress events only one in `PROGRESS_SECONDS` and the last of a stage are kept."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lines: dict[str, list[str]] = {}
        self._last_progress: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        if event.kind == "progress":
            finished = event.values.get("done") == event.values.get("total")
            if not finished and event.time - self._last_progress.get(event.stage, 0) < PROGRESS_SECONDS:
                return
            self._last_progress[event.stage] = event.time
        if event.stage not in self._lines:
            self._lines[event.stage] = [_line(earlier) for earlier in read_events(self._workspace, event.stage)]
        lines = self._lines[event.stage]
        lines.append(_line(event))
        (self._workspace.folder / "events").write_bytes(f"{event.stage}.jsonl", "\n".join([*lines, ""]).encode())


def read_events(workspace: Workspace, stage: str) -> list[Event]:
    """The events of a stage over all its runs, oldest first; none where it has not run."""
    folder, name = workspace.folder / "events", f"{stage}.jsonl"
    if not folder.exists(name):
        return []
    return [Event(**json.loads(line)) for line in folder.read_bytes(name).decode().splitlines()]


def _line(event: Event) -> str:
    return json.dumps({**dataclasses.asdict(event), "values": dict(event.values)})
