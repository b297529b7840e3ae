"""A real cluster on this machine, used by the command line: start, submit, follow, stop, refusals, end."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from support.processes.listening import addresses
from support.processes.other_user import as_nobody, needs_root
from support.processes.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.distributed]

COMMAND = [sys.executable, "-c", "from cluster.cli.main import main; main()"]
SECONDS = 480.0
WORKERS = 2


@dataclass
class User:
    """A user with a home folder of their own, who knows the token or does not."""

    environment: dict[str, str]

    def start(self, *arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
        command = [*COMMAND, *map(str, arguments)]
        environment = {**self.environment, **variables}
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=Path.cwd()
        )

    def __call__(self, *arguments: str | Path, code: int = 0, **variables: str) -> str:
        """Run a command; returns its standard output, or its standard error if it is expected to fail."""
        process = self.start(*arguments, **variables)
        output, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == code, (arguments, output, errors)
        assert "Traceback" not in errors
        return errors if code else output


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> User:
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return User({**kept, "HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "COLUMNS": "200"})


@pytest.fixture(scope="module")
def dashboard(user: User) -> Iterator[str]:
    try:
        said = user("local", "up", "--workers", str(WORKERS), "--cpus-per-node", "2")
        yield said.split("dashboard ")[1].split()[0]
    finally:
        user("local", "down")


@pytest.fixture(scope="module")
def token(user: User, dashboard: str) -> str:
    return (Path(user.environment["HOME"]) / ".ray" / "auth_token").read_text()


@pytest.fixture(scope="module")
def data(user: User, dashboard: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that has little to do, in a folder whose name a shell would act upon; made on the cluster, of
    which this is another way in."""
    folder = tmp_path_factory.mktemp("data") / "it's $(touch pwned); `touch pwned`"
    size = ("--items", "1000", "--users", "100", "--dim", "16")
    user("synth", folder, *size, "--ray-address", state(user)["address"])
    return folder / "config.yaml"


def state(user: User) -> dict[str, Any]:
    """The state file of `local up`."""
    file = Path(user.environment["XDG_STATE_HOME"]) / "alphafuse" / "local-cluster" / "cluster.json"
    return json.loads(file.read_text())


def nodes(user: User) -> list[psutil.Process]:
    """The processes of the cluster's nodes."""
    pids = [node["pid"] for node in state(user)["nodes"]]
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


def test_every_node_is_there_with_its_cpus(user: User, dashboard: str, token: str) -> None:
    answer = requests.get(f"{dashboard}/nodes?view=summary", headers={"Authorization": f"Bearer {token}"}, timeout=60)
    resources = [node["raylet"]["resourcesTotal"] for node in answer.json()["data"]["summary"]]
    assert sorted(each.get("CPU", 0) for each in resources) == [0, 2, 2]
    assert "runs already" in user("local", "up", code=1)


def test_the_token_is_asked_for_and_seen_by_nobody(user: User, dashboard: str, token: str) -> None:
    file = Path(user.environment["HOME"]) / ".ray" / "auth_token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    version = f"{dashboard}/api/version"
    assert requests.get(version, timeout=60).status_code == 401
    assert requests.get(version, headers={"Authorization": "Bearer wrong"}, timeout=60).status_code == 403
    job = {"entrypoint": "true"}
    assert requests.post(f"{dashboard}/api/jobs/", json=job, timeout=60).status_code == 401
    family = [process for node in nodes(user) for process in (node, *node.children(recursive=True))]
    assert len(family) > 3 * (WORKERS + 1)
    for process in family:
        assert token not in " ".join(process.cmdline())
    for folder in (Path(state(user)["temp_folder"]), Path(user.environment["XDG_STATE_HOME"])):
        for log in folder.rglob("*"):
            if log.is_file():
                assert token.encode() not in log.read_bytes(), log


@needs_root
def test_another_user_cannot_replace_a_package(user: User, dashboard: str) -> None:
    """Ray makes the folder that packages of working folders are unpacked in writable for everybody."""
    folder = Path(state(user)["temp_folder"])
    assert stat.S_IMODE(folder.lstat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "r" / "session_latest").stat().st_mode) == 0o777
    plant = "import pathlib, sys; pathlib.Path(sys.argv[1], 'runtime_resources', 'package').write_text('hostile')"
    assert "PermissionError" in as_nobody(plant, folder / "r" / "session_latest").stderr


def test_the_dashboard_listens_on_loopback_alone(user: User, dashboard: str) -> None:
    port = int(dashboard.rsplit(":", 1)[1])
    family = [process for node in nodes(user) for process in node.children(recursive=True)]
    assert {address for address, listened in addresses(family) if listened == port} == {"127.0.0.1"}


def test_without_the_token_nothing_is_submitted(user: User, dashboard: str, data: Path, tmp_path: Path) -> None:
    stranger = {"HOME": str(tmp_path)}
    arguments = ("submit", data, "--address", dashboard)
    assert "there is no token to show to the cluster" in user(*arguments, code=1, **stranger)
    assert "refuses the token" in user(*arguments, code=1, RAY_AUTH_TOKEN="wrong")
    # Knowingly without a token: the cluster itself refuses.
    assert "refuses the token" in user(*arguments, code=1, RAY_AUTH_MODE="disabled")
    assert user("jobs").strip() == "no jobs of alphafuse on this cluster"


CURABLE = [
    (("jobs", "--address", "127.0.0.1:8265"), "is not the URL of a dashboard"),
    (("jobs", "--address", "http://me:letmein@127.0.0.1:8265"), "would be seen by others"),
    (("jobs", "--address", "http://127.0.0.1:1"), "nothing answers at http://127.0.0.1:1"),
    (("logs", "nobody-1"), "nobody-1 does not exist"),
    (("logs", "-f", "nobody-1"), "nobody-1 does not exist"),
    (("stop", "nobody-1"), "nobody-1 does not exist"),
    (("status", "nobody-1"), "nobody-1 does not exist"),
    (("submit", "CONFIG", "--redo", "tran"), "there is no stage 'tran'"),
    (("submit", "CONFIG", "--set", "workspace=s3://key:letmein@bucket/run"), "workspace holds credentials"),
    (("submit", "CONFIG", "--runtime-env", "SECRETS"), "runtime_env.env_vars.HF_TOKEN holds credentials"),
    (("submit", "CONFIG", "--metadata", "password=letmein"), "metadata.password holds credentials"),
]
ONE_AFTER_THE_OTHER = """
import contextlib, io, json, sys
from cluster.cli.main import main

told = []
for sys.argv[1:] in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            main()
        except SystemExit as exit:
            told.append((exit.code, errors.getvalue()))
print(json.dumps(told))
"""
"""Commands in one process, since each imports for seconds what it needs."""


def test_what_a_user_can_cure_is_told(user: User, dashboard: str, data: Path) -> None:
    secrets = data.parent / "secrets.yaml"
    secrets.write_text("env_vars: {HF_TOKEN: letmein}")
    files = {"CONFIG": str(data), "SECRETS": str(secrets)}
    commands = [[files.get(argument, argument) for argument in arguments] for arguments, _ in CURABLE]
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(commands)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=user.environment,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    for (arguments, message), (code, said) in zip(CURABLE, told, strict=True):
        assert (code, message in said) == (1, True), (arguments, said)
        assert "letmein" not in said
        assert "Traceback" not in said


def test_a_run_is_submitted_followed_and_listed(user: User, dashboard: str, data: Path) -> None:
    said = user("submit", data, "--until", "embed", "-f", "--with-code", "--metadata", "team=shop")
    job = said.split()[1]
    assert job.startswith("config-")
    assert f"workspace {data.parent}/run" in said  # as it was given: it went through no shell
    assert not list(data.parent.parent.rglob("pwned"))
    assert not Path("pwned").exists()
    assert "✓ prepare" in said
    assert "✓ embed" in said
    assert "✓ decompose" not in said
    assert said.split("\n", 1)[1].rstrip() == user("logs", job).rstrip()
    (line,) = [line for line in user("jobs").splitlines() if job in line]
    assert " succeeded " in line
    status = user("status", job)
    assert f"job {job}  succeeded" in status
    assert "✓  embed      done in 0:0" in status
    assert "·  train      not started" in status


def test_a_job_is_stopped_and_what_it_did_is_kept(user: User, dashboard: str, data: Path) -> None:
    # Its patience must not end either: on a slow machine the training ended before it was stopped.
    endless = (
        "train.max_epochs=100000",
        "train.patience=100000",
        "train.checkpoint_steps=5",
        "train.log_steps=1",
        "train.resources.workers=2",
    )
    said = user("submit", data, *(f"--set={setting}" for setting in endless), "--driver-memory", "0.5")
    job = said.split()[1]
    follower = user.start("logs", "-f", job)
    checkpoints = data.parent / "run" / "checkpoints"
    wait_until(lambda: checkpoints.exists() and bool(list(checkpoints.iterdir())), SECONDS, follower)
    said = user("submit", data, code=1)
    assert f"the job {job} is at work in" in said
    wait_until(lambda: "steps" in user("status", job), SECONDS, follower)
    running = user("status", job)
    assert "✓  decompose" in running
    assert "heard from" in running
    assert user("stop", job).strip() == f"{job} is stopped"
    output, errors = follower.communicate(timeout=SECONDS)
    assert "✓ decompose" in output
    assert errors.strip().endswith(f"{job} stopped")
    assert follower.returncode == 1
    stopped = user("status", job)
    assert "stopped; the next run goes on from here" in stopped
    assert list(checkpoints.iterdir())


def test_more_workers_than_there_is_room_for_are_refused_at_once(user: User, dashboard: str, data: Path) -> None:
    asked = ("--set", "train.resources.workers=5", "--set", f"workspace={data.parent}/other")
    jobs = user("jobs")
    assert (
        "train.resources.workers asks for 5 workers with 1 CPUs and 0 GPUs each, but the cluster has room for 4"
        in user("submit", data, *asked, code=1)
    )
    assert user("jobs") == jobs
    assert not (data.parent / "other").exists()


def test_a_killed_node_is_the_only_one_that_is_gone(user: User, dashboard: str) -> None:
    """The nodes are separate. This is the last test before the end of the cluster, which must cope with the loss."""
    *others, last = nodes(user)
    family = [last, *last.children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=60)
    assert all(process.is_running() for process in others)


def test_down_ends_every_process(user: User, dashboard: str) -> None:
    family = [
        process for node in nodes(user) if node.is_running() for process in (node, *node.children(recursive=True))
    ]
    assert user("local", "down").strip() == f"stopped {dashboard}"
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert user("local", "down").strip() == "no local cluster is running"
    assert "which cluster?" in user("jobs", code=1)
