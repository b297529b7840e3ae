"""Hands a run to the Jobs API of a cluster.

The configuration travels as a file of the job's working folder; the command that the cluster runs is always the same,
so nothing that a user writes ever passes through a shell.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ray.job_submission import JobStatus

from alphafuse.config import Config
from alphafuse.errors import ClusterError, ConfigError
from alphafuse.stages import Stage
from cluster.remote.credential_check import require_no_credentials
from cluster.remote.jobs_api import Connection, told
from cluster.remote.local_paths import absolute, require_reach

PACKAGES = ("alphafuse", "cluster", "jobs", "monitoring")
CONFIG_FILE = "config.yaml"
REQUEST_FILE = "request.json"
ENTRYPOINT = "python -m cluster.cli.submitted_job"
WORKSPACE_KEY = "workspace"
"""Of a job's metadata: marks the jobs of this project."""


@dataclass(frozen=True)
class Driver:
    """What the process that starts the stages takes on the cluster, and is told.

    It waits most of the time and asks for no CPU: one that it held would be missing to a stage that it waits for.

    Attributes:
        memory: bytes that are set aside for it.
        resources: custom resources of its machine; without these and `memory` it runs on the head node.
        runtime_env: more of Ray's runtime environment (`env_vars`, `pip`, …), for it and for the workers.
        with_code: run the code of this installation rather than the cluster's own.
    """

    memory: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    with_code: bool = False


def submit(
    connection: Connection,
    config: Config,
    name: str,
    stages: Sequence[Stage],
    again: Stage | None = None,
    driver: Driver | None = None,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Start the stages of a run as a job; returns the job's id.

    Args:
        name: the id begins with it.
        again: this stage and all later ones are redone.
        metadata: more that is kept with the job.

    Raises:
        ClusterError: the cluster cannot reach what the configuration names, refuses the job, or runs one already that
            writes into the same workspace.
        ConfigError: the runtime environment or the metadata holds credentials, or the runtime environment a working
            folder.
    """
    driver = driver or Driver()
    if "working_dir" in driver.runtime_env:
        raise ConfigError("the runtime environment names a `working_dir`, which is where the configuration travels")
    require_no_credentials({"runtime_env": driver.runtime_env, "metadata": metadata or {}})
    config = absolute(config)
    if not connection.is_this_machine():
        require_reach(config)
    _require_idle(connection, config.workspace)
    config = config.model_copy(update={"ray": config.ray.model_copy(update={"address": "auto", "num_cpus": None})})
    with tempfile.TemporaryDirectory() as folder:
        request = {"stages": [stage.name for stage in stages], "again": again.name if again else None}
        write_working_folder(Path(folder), config, request, driver.with_code)
        with told(connection.url):
            return connection.client.submit_job(
                entrypoint=ENTRYPOINT,
                submission_id=f"{_plain(name)}-{secrets.token_hex(4)}",
                runtime_env={**driver.runtime_env, "working_dir": folder},
                metadata={
                    **(metadata or {}),
                    WORKSPACE_KEY: config.workspace,
                    "stages": f"{stages[0].name} to {stages[-1].name}",
                    "alphafuse": importlib.metadata.version("alphafuse"),
                },
                entrypoint_memory=driver.memory,
                entrypoint_resources=dict(driver.resources) or None,
            )


def write_working_folder(folder: Path, config: Config, request: Mapping[str, Any], with_code: bool) -> None:
    """Write what the job finds in its working folder: configuration, request and, if asked for, the packages."""
    content = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (folder / CONFIG_FILE).write_text(content, encoding="utf-8")
    (folder / REQUEST_FILE).write_text(json.dumps(request), encoding="utf-8")
    for package in PACKAGES if with_code else ():
        source = Path(__file__).parents[2] / package  # they are installed side by side
        shutil.copytree(source, folder / package, ignore=shutil.ignore_patterns("__pycache__"))


def _require_idle(connection: Connection, workspace: str) -> None:
    """Check that no job of the cluster writes into the workspace."""
    with told(connection.url):
        jobs = connection.client.list_jobs()
    for job in jobs:
        if (job.metadata or {}).get(WORKSPACE_KEY) == workspace and not JobStatus(job.status).is_terminal():
            raise ClusterError(
                f"the job {job.submission_id} is at work in {workspace} ({job.status}). Wait for it, stop it "
                f"(`alphafuse stop {job.submission_id}`), or give another workspace"
            )


def _plain(name: str) -> str:
    """Letters, digits, and - for anything else: the id is part of URLs and file names."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "run"
