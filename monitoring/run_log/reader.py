"""Reads one workspace again and again, at little cost: only files that have changed are opened."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow.fs as pafs
import yaml

from alphafuse.events import Event
from alphafuse.storage.ownership import HEARTBEAT, Beat
from alphafuse.storage.workspace import Workspace
from monitoring.run_log.event_log import iterate_events
from monitoring.run_log.finding import borrowed_stages, committed_stages
from monitoring.run_log.heartbeat import read_heartbeat
from monitoring.run_log.run_state import RunState, judge, latest_real_run
from monitoring.run_log.training_curves import Training, training_of

SUFFIX, CONFIG = ".jsonl", "config.yaml"
Reported = TypeVar("Reported", bound=Event)


@dataclass(frozen=True)
class Run:
    """Everything known of a run at one moment; immutable, so that pages may use it while the next one is made.

    Attributes:
        key: name of the run, unique on the dashboard.
        uri: URI of its workspace.
        settings: its configuration; empty if there is none (yet).
        events: events of each stage, oldest first.
        beat: latest heartbeat; None if there is none.
        committed: stages without events whose artefacts are finished.
        borrowed: stages that another run made for this one.
        training: curves and workers of the training.
        version: number that grows with every change of events or settings.
        problem: why a part of the run could not be read; empty if all of it was.
        read: time of reading, seconds since the epoch.
    """

    key: str
    uri: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    events: Mapping[str, list[Event]] = field(default_factory=dict)
    beat: Beat | None = None
    committed: frozenset[str] = frozenset()
    borrowed: frozenset[str] = frozenset()
    training: Training = field(default_factory=Training)
    version: int = 0
    problem: str = ""
    read: float = 0.0

    def state(self, now: float) -> RunState:
        return judge(self.events, self.beat, now, self.committed, self.borrowed)

    @property
    def monitor(self) -> str:
        """The validation metric that chooses the best weights."""
        return str(self.settings.get("train", {}).get("monitor", "ndcg@20"))

    def latest_events(self, *kinds: type[Reported]) -> list[Reported]:
        """The events of these classes from the latest run of each stage, oldest first."""
        streams = [latest_real_run(stream) for stream in self.events.values()]
        found = [event for stream in streams for event in stream if isinstance(event, kinds)]
        return sorted(found, key=lambda event: event.time)


class RunReader:
    """Reads a workspace and remembers what it has read, with size and time of each file."""

    def __init__(self, key: str, uri: str) -> None:
        self.run = Run(key, uri)
        self._seen: dict[str, tuple[int | None, int | None]] = {}

    def read(self) -> Run:
        """Read what has changed, and return the run. A damaged file is named in `problem`; its events before the damage
        are kept."""
        problems: list[str] = []
        workspace, earlier = Workspace(self.run.uri), self.run
        files = self._files(workspace)
        changed = {name for name, state in files.items() if name.endswith(SUFFIX) and self._seen.get(name) != state}
        events = {stage: known for stage, known in earlier.events.items() if f"{stage}{SUFFIX}" in files}
        for name in sorted(changed):
            stage = name.removesuffix(SUFFIX)
            events[stage] = []
            try:
                for event in iterate_events(workspace, stage):
                    events[stage].append(event)
            except ValueError as error:
                problems.append(f"events/{name} cannot be read to its end: {error}")
                del files[name]  # so that the file is read again
        self._seen = files
        settings = _settings(workspace) if CONFIG in files else {}
        first = not earlier.read
        is_new = first or bool(changed) or settings != earlier.settings or events.keys() != earlier.events.keys()
        trained = f"train{SUFFIX}" in changed or "train" not in events
        self.run = Run(
            key=earlier.key,
            uri=earlier.uri,
            settings=settings,
            events=events,
            beat=read_heartbeat(workspace) if HEARTBEAT in files else None,
            committed=committed_stages(workspace) - events.keys() if is_new else earlier.committed,
            borrowed=borrowed_stages(workspace),
            training=training_of(events.get("train", ())) if trained else earlier.training,
            version=earlier.version + is_new,
            problem="; ".join(problems),
            read=time.time(),
        )
        return self.run

    def _files(self, workspace: Workspace) -> dict[str, tuple[int | None, int | None]]:
        """Size and time of the files in `events/` and of the configuration."""
        filesystem, path = workspace.folder.open()
        infos = filesystem.get_file_info(pafs.FileSelector(f"{path}/events", allow_not_found=True))
        infos.append(filesystem.get_file_info(f"{path}/{CONFIG}"))
        return {info.base_name: (info.size, info.mtime_ns) for info in infos if info.type == pafs.FileType.File}


def _settings(workspace: Workspace) -> Mapping[str, Any]:
    content = yaml.load(workspace.folder.read_bytes(CONFIG), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return content if isinstance(content, dict) else {}
