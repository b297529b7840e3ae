"""Keeps in a workspace what a run does there: its configuration and its events. A command that is refused, or
interrupted before it does anything, leaves no trace.
"""

from __future__ import annotations

from types import TracebackType

import yaml

from alphafuse.config import Config
from alphafuse.events import ArtifactCommitted, Event, StageRefused, StageSkipped, StageStarted, StageWarning
from alphafuse.storage.filesystem.folder import resolve
from alphafuse.storage.workspace import CONFIG, Workspace
from monitoring.run_log.event_log import EventLog
from monitoring.run_log.heartbeat import Heartbeat

LOOKS = (StageStarted, StageSkipped, StageRefused, StageWarning, ArtifactCommitted)
"""Events of a stage that finds its work done, or refuses the configuration."""


class History:
    """Listener and context. Events are held back until a stage that is not finished begins, or the run has ended well:
    nothing tells earlier that the stages accept the configuration.

    Args:
        workspace: workspace of the run, guarded by its heartbeat.
        heartbeat: heartbeat of the run, which leaves no trace either where the run does nothing.
    """

    def __init__(self, config: Config, workspace: Workspace, heartbeat: Heartbeat) -> None:
        self.workspace = workspace
        # Its commands work from any current folder.
        tree = config.model_copy(update={"workspace": workspace.folder.uri}).model_dump(mode="json")
        if config.update.parent is not None:
            tree["update"]["parent"] = resolve(config.update.parent)
        self._content = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode()
        self._heartbeat = heartbeat
        self._log = EventLog(workspace)
        self._held: list[Event] | None = []
        self._before: bytes | None = None
        self._begun: list[str] = []
        self._worked: set[str] = set()

    def __enter__(self) -> History:
        self._heartbeat.leaves_trace = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.begin()
        self._heartbeat.leaves_trace = error is None or bool(self._worked)

    def begin(self) -> None:
        """Write the configuration and the events that were held back; does nothing from the second call on."""
        if self._held is None:
            return
        folder = self.workspace.folder
        self._before = folder.read_bytes(CONFIG) if folder.exists(CONFIG) else None
        self._heartbeat.guard.require()
        folder.write_bytes(CONFIG, self._content)
        held, self._held = self._held, None
        for event in held:
            self._log(event)

    def __call__(self, event: Event) -> None:
        if not isinstance(event, LOOKS):
            self._worked.add(event.stage)
            self.begin()
        if isinstance(event, StageStarted):
            self._begun.append(event.stage)
        if isinstance(event, StageRefused):
            self._take_back(event.stage)
        elif self._held is None:
            self._log(event)
        else:
            self._held.append(event)

    def has_worked(self, stage: str) -> bool:
        """Tell whether a stage has done anything in this run."""
        return stage in self._worked

    def _take_back(self, stage: str) -> None:
        """Forget that a stage was started, and the configuration that it refused; the whole run where no stage has done
        anything."""
        if self._held is not None:
            self._held = [event for event in self._held if event.stage != stage]
            return
        for name in [stage] if self._worked else self._begun:
            self._log.take_back(name)
        self._heartbeat.guard.require()
        if self._before is not None:
            self.workspace.folder.write_bytes(CONFIG, self._before)
        elif not self._worked:
            self.workspace.folder.delete_files([CONFIG])
