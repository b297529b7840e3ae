"""Submits a run to the Jobs API of a cluster.

The configuration is a file in the job's working folder. The command that the cluster runs is always the same, so that
no text of a user passes through a shell.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ray.job_submission import JobStatus

from alphafuse.config import Config
from alphafuse.errors import ClusterError, ConfigError
from alphafuse.inputs import check_inputs
from alphafuse.stages import Stage
from alphafuse.storage.workspace import Workspace
from cluster.remote.credential_check import require_no_credentials
from cluster.remote.jobs_api import Connection, translate_errors
from cluster.remote.local_paths import absolute, check_reachable_inputs, require_no_local_paths
from jobs.execution.placement import growing
from jobs.preflight import require_room

PACKAGES = ("alphafuse", "cluster", "jobs", "monitoring")
CONFIG_FILE = "config.yaml"
REQUEST_FILE = "request.json"
ENTRYPOINT = "python -m cluster.cli.submitted_job"
WORKSPACE_KEY = "workspace"
"""Key in the metadata of a job; its presence marks the jobs of this project."""


@dataclass(frozen=True)
class Driver:
    """Resources and environment of the driver, the process that starts the stages.

    It waits most of the time and takes no CPU: a CPU that it held would be missing to the stage it waits for.

    Attributes:
        memory: bytes that are reserved for the driver.
        resources: custom resources of its machine; without resources and `memory` it runs on the head node.
        runtime_env: further values of Ray's runtime environment (`env_vars`, `pip`, …), for driver and workers.
        with_code: run the code of this installation instead of that of the cluster.
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
        name: beginning of the id.
        again: this stage and all later ones are run again.
        metadata: labels that are stored with the job.

    Raises:
        ClusterError: the cluster cannot read paths of the configuration, refuses the job, or already runs a job with
            the same workspace.
        ConfigError: the runtime environment or the metadata holds credentials, or the runtime environment names a
            working folder; or the language model is not there.
        DataError: a source that can be read from here is missing, damaged, lacks columns, or has one of another type.
        ResourceError: the cluster cannot hold a stage that has something to do, even when it has grown.
    """
    driver = driver or Driver()
    if "working_dir" in driver.runtime_env:
        raise ConfigError("the runtime environment names a `working_dir`, which is where the configuration travels")
    require_no_credentials({"runtime_env": driver.runtime_env, "metadata": metadata or {}})
    config = absolute(config)
    if connection.is_this_machine():
        check_inputs(config, stages)
    else:
        require_no_local_paths(config)
        check_reachable_inputs(config, stages)
    _require_idle(connection, config.workspace)
    _require_room(connection, config, stages, again)
    config = config.model_copy(update={"ray": config.ray.model_copy(update={"address": "auto", "num_cpus": None})})
    with tempfile.TemporaryDirectory() as folder:
        request = {"stages": [stage.name for stage in stages], "again": again.name if again else None}
        write_working_folder(Path(folder), config, request, driver.with_code)
        with translate_errors(connection.url):
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
    """Write the working folder of the job: configuration, request and, with `with_code`, the packages."""
    content = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (folder / CONFIG_FILE).write_text(content, encoding="utf-8")
    (folder / REQUEST_FILE).write_text(json.dumps(request), encoding="utf-8")
    for package in PACKAGES if with_code else ():
        source = Path(__file__).parents[2] / package  # the packages are installed side by side
        shutil.copytree(source, folder / package, ignore=shutil.ignore_patterns("__pycache__"))


def _require_idle(connection: Connection, workspace: str) -> None:
    """Check that no running job of the cluster writes to the workspace."""
    with translate_errors(connection.url):
        jobs = connection.client.list_jobs()
    for job in jobs:
        if (job.metadata or {}).get(WORKSPACE_KEY) == workspace and not JobStatus(job.status).is_terminal():
            raise ClusterError(
                f"the job {job.submission_id} is at work in {workspace} ({job.status}). Wait for it, stop it "
                f"(`alphafuse stop {shlex.quote(job.submission_id or '')}`), or give another workspace"
            )


def _require_room(connection: Connection, config: Config, stages: Sequence[Stage], again: Stage | None) -> None:
    """Check that the cluster can hold the stages. Where this machine cannot read the workspace, and so cannot tell
    which of them are finished, the job finds out itself."""
    with growing(config.ray.node_groups, connection.machines()), suppress(OSError, ImportError):
        require_room(config, Workspace(config.workspace), stages, again)


def _plain(name: str) -> str:
    """The name with - in place of all but letters and digits, since the id is part of URLs and file names."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "run"
