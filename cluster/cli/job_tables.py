"""Prints jobs and the state of a run for a person."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from ray.job_submission import JobDetails, JobStatus
from rich.markup import escape
from rich.table import Table

from alphafuse.events import EpochMetrics, Metrics, StageWarning, WorkersRestarted
from cluster.remote.submission import WORKSPACE_KEY
from monitoring.run_log.reader import Run
from monitoring.run_log.run_state import RunStatus, StageState, StageStatus
from monitoring.terminal.safe_text import SafeConsole, one_line

SHOWN_METRICS = 3
MARKS: dict[StageStatus, str] = {
    "finished": "[green]✓[/]",
    "running": "[green]…[/]",
    "cut off": "[yellow]…[/]",
    "failed": "[red]✗[/]",
    "waiting": "[dim]·[/]",
    "left out": "[dim]·[/]",
}


def print_jobs(jobs: Sequence[JobDetails]) -> None:
    """Prints one line per job of this project, newest first."""
    ours = [job for job in jobs if WORKSPACE_KEY in (job.metadata or {})]
    console = _console()
    if not ours:
        console.print("no jobs of alphafuse on this cluster")
        return
    table = Table(box=None, header_style="")
    for name in ("job", "state", "started", "took"):
        table.add_column(name, no_wrap=True)
    table.add_column("workspace", overflow="fold")
    for job in sorted(ours, key=lambda job: job.start_time or 0, reverse=True):
        metadata = job.metadata or {}
        table.add_row(
            escape(one_line(job.submission_id or "")),
            _state(job),
            _clock(job.start_time),
            _took(job),
            escape(one_line(metadata[WORKSPACE_KEY])),
        )
    console.print(table)


def print_job(job: JobDetails) -> None:
    """Prints the state of a job, with Ray's message if it failed or waits."""
    console = _console()
    name = escape(one_line(job.submission_id or ""))
    console.print(f"job {name}  {_state(job)}  started {_clock(job.start_time)}, {_took(job)}")
    if JobStatus(job.status) in (JobStatus.FAILED, JobStatus.PENDING) and job.message:
        console.print(f"  {escape(job.message.strip())}", soft_wrap=True)


def print_run(run: Run) -> RunStatus:
    """Prints one line per stage, then what cannot be read, warnings and errors; returns the state of the run."""
    state, console = run.state(time.time()), _console()
    heard = "" if state.latest is None else f", heard from {_duration(max(0.0, time.time() - state.latest))} ago"
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
        return "done" if stage.seconds is None else f"done in {_duration(stage.seconds)}"
    if stage.status in ("waiting", "left out"):
        return f"[dim]{'not started' if stage.status == 'waiting' else stage.status}[/]"
    parts = [_count(stage) if stage.unit else "started"]
    if stage.status != "running":
        parts.append(f"{'failed' if stage.status == 'failed' else 'stopped'}; the next run goes on from here")
    elif stage.remaining is not None:
        parts.append(f"about {_duration(stage.remaining)} left")
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


def _state(job: JobDetails) -> str:
    colour = {JobStatus.SUCCEEDED: "green", JobStatus.FAILED: "red", JobStatus.STOPPED: "yellow"}
    status = JobStatus(job.status)
    return f"[{colour.get(status, 'bold')}]{status.value.lower()}[/]"


def _clock(milliseconds: int | None) -> str:
    return "–" if not milliseconds else f"{datetime.fromtimestamp(milliseconds / 1000):%Y-%m-%d %H:%M:%S}"


def _took(job: JobDetails) -> str:
    if not job.start_time:
        return "–"
    return _duration((job.end_time or time.time() * 1000) / 1000 - job.start_time / 1000)


def _duration(seconds: float) -> str:
    """A duration, such as `0:00:07`."""
    return str(timedelta(seconds=round(seconds)))


def _console() -> SafeConsole:
    return SafeConsole(file=sys.stdout)
