"""Prints the jobs of a cluster for a person."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import datetime

from ray.job_submission import JobDetails, JobStatus
from rich.markup import escape
from rich.table import Table

from cluster.cli.run_tables import duration
from cluster.remote.submission import WORKSPACE_KEY
from monitoring.terminal.safe_text import SafeConsole, one_line


def print_jobs(jobs: Sequence[JobDetails]) -> None:
    """Prints one line per job of this project, newest first."""
    ours = [job for job in jobs if WORKSPACE_KEY in (job.metadata or {})]
    console = SafeConsole(file=sys.stdout)
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
    console = SafeConsole(file=sys.stdout)
    name = escape(one_line(job.submission_id or ""))
    console.print(f"job {name}  {_state(job)}  started {_clock(job.start_time)}, {_took(job)}")
    if JobStatus(job.status) in (JobStatus.FAILED, JobStatus.PENDING) and job.message:
        console.print(f"  {escape(job.message.strip())}", soft_wrap=True)


def _state(job: JobDetails) -> str:
    colour = {JobStatus.SUCCEEDED: "green", JobStatus.FAILED: "red", JobStatus.STOPPED: "yellow"}
    status = JobStatus(job.status)
    return f"[{colour.get(status, 'bold')}]{status.value.lower()}[/]"


def _clock(milliseconds: int | None) -> str:
    return "–" if not milliseconds else f"{datetime.fromtimestamp(milliseconds / 1000):%Y-%m-%d %H:%M:%S}"


def _took(job: JobDetails) -> str:
    if not job.start_time:
        return "–"
    return duration((job.end_time or time.time() * 1000) / 1000 - job.start_time / 1000)
