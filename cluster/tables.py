"""Prints jobs and the state of a run for a person."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from ray.job_submission import JobDetails, JobStatus
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.submission import WORKSPACE_KEY
from monitoring.status import DONE, OPEN, UNFINISHED, StageStatus

SHOWN_METRICS = 3


def print_jobs(jobs: Sequence[JobDetails]) -> None:
    """One line per job of this project, newest first."""
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
            job.submission_id,
            _state(job),
            _clock(job.start_time),
            _took(job),
            escape(metadata[WORKSPACE_KEY]),
        )
    console.print(table)


def print_job(job: JobDetails) -> None:
    """What a job is doing; of one that failed, Ray's word on why."""
    console = _console()
    console.print(f"job {job.submission_id}  {_state(job)}  started {_clock(job.start_time)}, {_took(job)}")
    if JobStatus(job.status) in (JobStatus.FAILED, JobStatus.PENDING) and job.message:
        console.print(f"  {escape(job.message.strip())}", soft_wrap=True)


def print_stages(workspace: str, stages: Sequence[StageStatus], at_work: bool | None) -> None:
    """One line per stage.

    Args:
        at_work: whether a job is known to be running; None where nobody knows.
    """
    console = _console()
    console.print(f"workspace {escape(workspace)}", soft_wrap=True)
    table = Table(box=None, show_header=False)
    for stage in stages:
        mark = {DONE: "[green]✓[/]", UNFINISHED: "[yellow]…[/]", OPEN: "[dim]·[/]"}[stage.state]
        table.add_row(mark, stage.stage, _how_far(stage, at_work), _results(stage))
    console.print(table)
    for stage in stages:
        for warning in stage.warnings:
            console.print(f"[yellow]! {stage.stage:<10} {escape(warning)}[/]", soft_wrap=True)


def _how_far(stage: StageStatus, at_work: bool | None) -> str:
    if stage.state == OPEN:
        return "[dim]not started[/]"
    if stage.state == DONE:
        return f"done in {_duration(stage.seconds)}" if stage.seconds is not None else "done"
    count = f"{stage.done or 0:,.0f}" + (
        f" / {stage.total:,.0f} ({(stage.done or 0) / stage.total:.0%})" if stage.total else ""
    )
    parts = [f"{count} {stage.unit}" if stage.unit else "started"]
    if at_work is False or stage.failed:
        parts.append("stopped; the next run goes on from here")
        return ", ".join(parts)
    if stage.seconds_left is not None:
        parts.append(f"about {_duration(stage.seconds_left)} left")
    if stage.last_heard is not None:
        parts.append(f"heard from {_duration(max(0.0, time.time() - stage.last_heard))} ago")
    return ", ".join(parts)


def _results(stage: StageStatus) -> str:
    metrics = list((stage.metrics or {}).items())[:SHOWN_METRICS]
    return "  ".join(f"{name} {value:,.4g}" for name, value in metrics)


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
    """`0:00:07`; days are counted in hours."""
    return str(timedelta(seconds=round(seconds)))


def _console() -> Console:
    return Console(file=sys.stdout, highlight=False)
