"""Finds damage in what a workspace holds beside its artefacts: event logs and heartbeat. None of it changes a
result: `run` goes on without what is lost.
"""

from __future__ import annotations

from collections.abc import Iterator

from alphafuse.stages import STAGES
from alphafuse.storage.ownership import HEARTBEAT, read_beat
from alphafuse.storage.verification import Finding, stray
from alphafuse.storage.workspace import Workspace
from monitoring.run_log.event_log import SUFFIX, describe_damage, drop_damaged_lines, scan_events
from monitoring.run_log.finding import borrowed_stages, committed_stages

FOLDER, MLFLOW = "events", "mlflow.json"
"""The folder of the logs, and the file of the tracker MLflow in it (`monitoring/tracking/mlflow.py`)."""


def examine_heartbeat(workspace: Workspace) -> Iterator[Finding]:
    """Yield what is wrong with the heartbeat. Whoever owns the workspace next replaces or deletes it, as does a repair:
    so ask before."""
    content, beat = read_beat(workspace.events)
    if content is not None and beat is None:
        yield Finding(f"{FOLDER}/{HEARTBEAT}", "it cannot be read", "repair", "deleted")
    elif content is None and workspace.events.names():
        yield Finding(f"{FOLDER}/{HEARTBEAT}", "it is missing: the next run writes it", "nothing")


def examine_events(workspace: Workspace, repair: bool) -> Iterator[Finding]:
    """Yield what is wrong with the event logs of a run; with `repair`, damaged lines are deleted."""
    sizes = workspace.events.sizes()
    for stage in STAGES:
        _, faults = scan_events(workspace, stage.name)
        if faults:
            told = describe_damage(faults)
            yield Finding(f"{FOLDER}/{stage.name}{SUFFIX}", told, "repair", "the damaged lines are deleted")
            if repair:
                drop_damaged_lines(workspace, stage.name, faults)
    logs = {f"{stage.name}{SUFFIX}" for stage in STAGES}
    for name in sorted(sizes.keys() - logs - {HEARTBEAT, MLFLOW}):
        yield stray(f"{FOLDER}/{name}")
    if not logs & sizes.keys():
        return  # a workspace that was copied without its logs
    kept = {stage.name for stage in STAGES if sizes.get(f"{stage.name}{SUFFIX}")}
    for stage_name in sorted(committed_stages(workspace) - borrowed_stages(workspace) - kept):
        lost = "it holds no event, although the stage has finished: its history is lost, and no result"
        yield Finding(f"{FOLDER}/{stage_name}{SUFFIX}", lost, "nothing")
