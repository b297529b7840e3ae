"""Follows a job of a cluster: copies its log, waits for its end or stops it, and reads its workspace."""

from __future__ import annotations

import asyncio
import time
from typing import TextIO

from ray.job_submission import JobDetails, JobStatus

from alphafuse.errors import ClusterError
from cluster.remote.jobs_api import Connection, translate_errors
from cluster.remote.submission import WORKSPACE_KEY
from monitoring.terminal.safe_text import printable

STOP_SECONDS = 120.0
POLL_SECONDS = 0.5


def follow(connection: Connection, job: str, output: TextIO) -> JobStatus:
    """Write the log of a job to a stream until the job ends; returns its last state.

    Raises:
        ClusterError: there is no such job, or the cluster stops answering.
    """

    async def copy() -> None:
        async for text in connection.client.tail_job_logs(job):
            output.write(printable(text))
            output.flush()

    with translate_errors(connection.url):
        connection.client.get_job_status(job)
        asyncio.run(copy())
    return _end(connection, job)


def stop_job(connection: Connection, job: str) -> JobStatus:
    """Stop a job and wait until it has ended; returns its last state.

    Raises:
        ClusterError: there is no such job, or it does not end.
    """
    with translate_errors(connection.url):
        connection.client.stop_job(job)
    return _end(connection, job)


def workspace_of(connection: Connection, job: str) -> tuple[JobDetails, str]:
    """Details of a job, and the workspace that it writes to.

    Raises:
        ClusterError: there is no such job, or it is not a job of this project.
    """
    with translate_errors(connection.url):
        details = connection.client.get_job_info(job)
    workspace = (details.metadata or {}).get(WORKSPACE_KEY)
    if workspace is None:
        raise ClusterError(f"the job {job} was not submitted by alphafuse; `alphafuse jobs` lists the jobs that were")
    return details, workspace


def _end(connection: Connection, job: str) -> JobStatus:
    """Wait for the last state of a job, which ends a moment after its log."""
    deadline = time.monotonic() + STOP_SECONDS
    with translate_errors(connection.url):
        while not (status := JobStatus(connection.client.get_job_status(job))).is_terminal():
            if time.monotonic() > deadline:
                raise ClusterError(f"the job {job} is still {status.value.lower()} after {STOP_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
    return status
