"""The command `verify`: tells what is damaged in a workspace, and repairs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain

from alphafuse.config import Config
from alphafuse.config.bounded_yaml import load_yaml
from alphafuse.errors import ConfigError, WorkspaceError
from alphafuse.serving.deltas import DELTAS, find_deltas
from alphafuse.stages import ARTIFACTS
from alphafuse.storage.manifest import changed_inputs
from alphafuse.storage.redo import REDO
from alphafuse.storage.verification import Finding, examine, origins, stray
from alphafuse.storage.workspace import BORROWED, CONFIG, Workspace
from jobs.comparison.shared_stages import examine_borrowed
from monitoring.run_log.heartbeat import only_owner
from monitoring.run_log.log_verification import examine_events, examine_heartbeat
from monitoring.terminal.safe_text import echo, one_line


def verify_workspace(config: Config, workspace: Workspace, repair: bool) -> None:
    """Read every file of a workspace, print what is damaged, and with `repair` cure it.

    Raises:
        OwnershipError: a run works there, so that nothing may be repaired.
        WorkspaceError: nothing is there; or something is left to be done, as the message tells.
    """
    needs = set()
    heartbeat = list(examine_heartbeat(workspace))
    with only_owner(workspace) if repair else nullcontext():
        for finding in chain(_findings(config, workspace, repair), heartbeat):
            cure = f" ({finding.cure})" if repair and finding.cure else ""
            echo(one_line(f"! {finding.file}: {finding.fault}{cure}"))
            needs.add(finding.needs)
    if repair:
        if needs & {"run", "repair"}:
            echo("try     alphafuse run CONFIG   (makes what is missing, and nothing else)")
    elif "repair" in needs:
        raise WorkspaceError(
            f"{workspace.folder.uri} is damaged.",
            "`alphafuse verify CONFIG --repair` deletes or restores what is damaged, and `alphafuse run CONFIG` makes "
            "again what is missing then",
        )
    elif "run" in needs:
        raise WorkspaceError(f"{workspace.folder.uri} is not complete.", "`alphafuse run CONFIG` makes what is missing")


def _findings(config: Config, workspace: Workspace, repair: bool) -> Iterator[Finding]:
    """Yield what is wrong; with `repair`, what is yielded is cured before the next finding is asked for."""
    borrowed = examine_borrowed(workspace, config)
    if borrowed is not None:
        yield borrowed.finding
        if not repair:
            return  # where the artefacts lie is not known
        borrowed.repair()
    manifests, anything, foreign = {}, borrowed is not None, None
    for name in ARTIFACTS:
        found = examine(workspace.artifact(name))
        manifests[name] = found.manifest
        if found.manifest is not None:
            echo(f"{name}: {found.whole} of {len(found.manifest.files)} files as committed")
        yield from found.findings
        anything |= found.manifest is not None or bool(found.findings)
        if repair:
            try:
                found.repair()
            except WorkspaceError as error:
                foreign = foreign or error
    for artifact in workspace.redone():
        found = examine(artifact)
        yield from (replace(finding, file=f"{REDO}/{finding.file}") for finding in found.findings)
        if repair:
            found.repair()
    if workspace.artifact("export").manifest() is not None:
        deltas = find_deltas(workspace.artifact("export"))
        for delta in deltas:
            delta.verify()
        if deltas:
            echo(f"export/{DELTAS}: {len(deltas)} as committed")
    if not anything:
        raise WorkspaceError(f"{workspace.folder.uri} holds no finished stage: is `workspace` right?")
    yield from origins(manifests)
    yield from examine_events(workspace, repair)
    yield from _examine_settings(config, workspace)
    for name, size in workspace.folder.sizes().items():
        if size is not None and name not in (CONFIG, BORROWED):
            yield stray(name)
    if foreign is not None:
        raise foreign


def _examine_settings(config: Config, workspace: Workspace) -> Iterator[Finding]:
    """Yield what is wrong with the configuration that lies in the workspace."""
    try:
        settings = load_yaml(workspace.folder.read_bytes(CONFIG), CONFIG) if workspace.folder.exists(CONFIG) else None
    except ConfigError as error:
        yield Finding(CONFIG, str(error), "run")
        return
    if settings is None:
        yield Finding(CONFIG, "it is missing: the next run writes it", "nothing")
    elif not isinstance(settings, dict):
        yield Finding(CONFIG, "it holds no configuration", "run")
    elif changes := changed_inputs(settings, config.model_dump(mode="json")):
        shown = "; ".join(changes[:3]) + "; …" * (len(changes) > 3)
        yield Finding(CONFIG, f"it differs from the configuration that was given: {shown}", "nothing")
