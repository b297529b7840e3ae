"""Reads one workspace again and again, at little cost: only files that have changed are opened."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow.fs as pafs

from alphafuse.config.bounded_yaml import MOST_BYTES, load_yaml
from alphafuse.errors import AlphafuseError, ConfigError
from alphafuse.events import Event
from alphafuse.storage.ownership import HEARTBEAT, Beat
from alphafuse.storage.workspace import CONFIG, Workspace
from monitoring.run_log.event_log import SUFFIX, describe_damage, scan_events
from monitoring.run_log.finding import borrowed_stages, committed_stages, leads_out
from monitoring.run_log.heartbeat import read_heartbeat
from monitoring.run_log.made_with import made_with
from monitoring.run_log.run_state import RunState, judge, latest_real_run
from monitoring.run_log.training_curves import Training, training_of

Reported = TypeVar("Reported", bound=Event)


@dataclass(frozen=True)
class Run:
    """Everything known of a run at one moment; immutable, so that pages may use it while the next one is made.

    Attributes:
        key: name of the run, unique on the dashboard.
        uri: URI of its workspace.
        settings: the settings that its results were made with, and those of its configuration for the rest; empty if
            there is no configuration (yet).
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
        self._settings_problem = ""

    def read(self) -> Run:
        """Read what has changed, and return the run. A damaged file is named in `problem`; its events before the damage
        are kept."""
        problems: list[str] = []
        workspace, earlier = Workspace(self.run.uri), self.run
        files = self._files(workspace, problems)
        changed = {name for name, state in files.items() if name.endswith(SUFFIX) and self._seen.get(name) != state}
        events = {stage: known for stage, known in earlier.events.items() if f"{stage}{SUFFIX}" in files}
        for name in sorted(changed):
            stage = name.removesuffix(SUFFIX)
            events[stage], faults = scan_events(workspace, stage)
            if faults:
                problems.append(f"events/{name}: {describe_damage(faults, ' are left out')}")
                del files[name]  # so that the file is read again, and the problem shown again
        is_changed = self._seen.get(CONFIG) != files.get(CONFIG)
        self._seen = files
        first = not earlier.read
        is_new = first or bool(changed) or is_changed or events.keys() != earlier.events.keys()
        settings = self._settings(workspace, files) if is_new else earlier.settings
        problems += filter(None, [self._settings_problem])
        trained = f"train{SUFFIX}" in changed or "train" not in events
        beat, committed, borrowed = None, earlier.committed, earlier.borrowed
        try:
            beat = read_heartbeat(workspace) if HEARTBEAT in files else None
        except ValueError as error:
            problems.append(str(error))
        try:
            committed, borrowed = committed_stages(workspace), borrowed_stages(workspace)
        except AlphafuseError as error:
            problems.append(str(error))
        self.run = Run(
            key=earlier.key,
            uri=earlier.uri,
            settings=settings,
            events=events,
            beat=beat,
            committed=committed - events.keys() if is_new else earlier.committed,
            borrowed=borrowed,
            training=training_of(events.get("train", ())) if trained else earlier.training,
            version=earlier.version + is_new,
            problem="; ".join(problems),
            read=time.time(),
        )
        return self.run

    def _settings(self, workspace: Workspace, files: Mapping[str, tuple[int | None, int | None]]) -> Mapping[str, Any]:
        """The settings to show; notes what is wrong with them."""
        self._settings_problem = ""
        if CONFIG not in files:
            return {}
        try:
            if (files[CONFIG][0] or 0) > MOST_BYTES:
                raise ConfigError(f"{CONFIG} is larger than {MOST_BYTES >> 20} MiB: it is not read")
            content = load_yaml(workspace.folder.read_bytes(CONFIG), CONFIG)
            return made_with(content, workspace) if isinstance(content, dict) else {}
        except AlphafuseError as error:
            self._settings_problem = str(error)
            return self.run.settings

    def _files(self, workspace: Workspace, problems: list[str]) -> dict[str, tuple[int | None, int | None]]:
        """Size and time of the files in `events/` and of the configuration; those that are links out of the workspace
        are problems."""
        filesystem, path = workspace.folder.open()
        infos = filesystem.get_file_info(pafs.FileSelector(f"{path}/events", allow_not_found=True))
        infos.append(filesystem.get_file_info(f"{path}/{CONFIG}"))
        files = {}
        for info in infos:
            if isinstance(filesystem, pafs.LocalFileSystem) and leads_out(info.path, path):
                problems.append(f"{info.base_name} is a link out of the workspace: it is not read")
            elif info.type == pafs.FileType.File:
                files[info.base_name] = info.size, info.mtime_ns
        return files
