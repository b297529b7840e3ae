"""Reads the state of a run from its workspace, and prints it. Needs no cluster, and imports nothing heavy."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from rich.markup import escape
from rich.table import Table

from alphafuse.errors import WorkspaceError
from alphafuse.events import EpochMetrics, Metrics, StageWarning, WorkersRestarted
from alphafuse.storage.filesystem.folder import resolve
from monitoring.run_log.finding import is_workspace
from monitoring.run_log.reader import Run, RunReader
from monitoring.run_log.run_state import RunStatus, StageState, StageStatus
from monitoring.terminal.safe_text import SafeConsole

SHOWN_METRICS = 3
MARKS: dict[StageStatus, str] = {
    "finished": "[green]✓[/]",
    "running": "[green]…[/]",
    "cut off": "[yellow]…[/]",
    "failed": "[red]✗[/]",
    "waiting": "[dim]·[/]",
    "left out": "[dim]·[/]",
}


def read_run(workspace: str) -> Run:
    """Read the run of a workspace.

    Raises:
        WorkspaceError: there is no workspace, or it cannot be read from this machine.
    """
    uri = resolve(workspace)
    try:
        if not is_workspace(uri):
            raise WorkspaceError(
                f"there is no workspace {uri}: nothing has run there (yet), or `workspace` starts from another folder"
            )
        return RunReader(uri, uri).read()
    except OSError as error:
        raise WorkspaceError(f"the workspace {uri} cannot be read from here: {error}") from error


def print_run(run: Run) -> RunStatus:
    """Prints one line per stage, then what cannot be read, warnings and errors; returns the state of the run."""
    state, console = run.state(time.time()), SafeConsole(file=sys.stdout)
    heard = "" if state.latest is None else f", heard from {duration(max(0.0, time.time() - state.latest))} ago"
    console.print(f"workspace {escape(run.uri)}  {state.status}{heard}", soft_wrap=True)
    table = Table(box=None, show_header=False)
    for stage in state.stages:
        table.add_row(MARKS[stage.status], stage.name, _how_far(stage), _results(run, stage.name))
    console.print(table)
    for event in run.latest_events(StageWarning, WorkersRestarted):
        console.print(f"[yellow]! {event.stage:<10} {escape(event.message)}[/]", soft_wrap=True)
    for stage in state.stages:
        if stage.message:
            console.print(f"[red]✗ {stage.name:<10} {escape(stage.message)}[/]", soft_wrap=True)
    if run.problem:
        console.print(f"[red]! {escape(run.problem)}[/]", soft_wrap=True)
    return state.status


def _how_far(stage: StageState) -> str:
    if stage.status == "finished":
        return "done" if stage.seconds is None else f"done in {duration(stage.seconds)}"
    if stage.status in ("waiting", "left out"):
        return f"[dim]{'not started' if stage.status == 'waiting' else stage.status}[/]"
    parts = [_count(stage) if stage.unit else "started"]
    if stage.status != "running":
        parts.append(f"{'failed' if stage.status == 'failed' else 'stopped'}; the next run goes on from here")
    elif stage.remaining is not None:
        parts.append(f"about {duration(stage.remaining)} left")
    return ", ".join(parts)


def _count(stage: StageState) -> str:
    count = f"{stage.done or 0:,.0f}"
    return f"{count} / {stage.total:,.0f} {stage.unit} ({stage.share:.0%})" if stage.total else f"{count} {stage.unit}"


def _results(run: Run, stage: str) -> str:
    """The first numbers of the latest metrics of a stage."""
    reports = [event for event in run.latest_events(Metrics) if event.stage == stage]
    numbers: dict[str, float] = {}
    if reports and isinstance(reports[-1], EpochMetrics):
        numbers = {"epoch": reports[-1].epoch, "loss": reports[-1].loss}
    numbers |= reports[-1].numbers if reports else {}
    return "  ".join(f"{name} {value:,.4g}" for name, value in list(numbers.items())[:SHOWN_METRICS])


def duration(seconds: float) -> str:
    """A duration, such as `0:00:07`."""
    return str(timedelta(seconds=round(seconds)))
