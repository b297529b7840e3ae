"""An embedded Ray belongs to its user, its machine and its driver. One driver serves all tests, and is killed by the
last one."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.processes.listening import addresses
from support.processes.other_user import as_nobody, needs_root

from alphafuse.errors import DataError, ResourceError
from jobs.execution.embedded_cluster import embedded_cluster
from jobs.execution.reaper import reap

ENDED_SECONDS = 10.0
"""Longest time between the death of a driver and the end of its Ray."""

DRIVER = """
import json, subprocess, sys, time
import ray
from alphafuse.config import RayConfig
from alphafuse.config.sections.resources import RankResources
from alphafuse.events import ignore
from alphafuse.stages import TRAIN
from jobs.execution.ray_connection import connected
from jobs.execution.worker_group import keeping_ranks, run_workers

@ray.remote
class Worker:
    def start(self):
        subprocess.Popen(["sleep", "1000"])  # a subprocess of a worker, such as an engine

    def work(self):
        time.sleep(1000)

def met(communicator, **_):
    return communicator.gather_objects(communicator.rank)

with connected(RayConfig(num_cpus=3)), keeping_ranks():
    assert run_workers(TRAIN, met, RankResources(workers=2), {}, ignore) == [0, 1]
    worker = Worker.remote()
    ray.get(worker.start.remote())
    worker.work.remote()
    context = ray.get_runtime_context()
    print(json.dumps({"session": context.get_temp_dir(), "address": context.gcs_address}), flush=True)
    time.sleep(1000)
"""


@dataclass
class Driver:
    process: subprocess.Popen[str]
    home: Path
    spill: Path
    told: dict[str, Any]

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A driver with a home folder of its own and a TMPDIR that is too long for sockets."""
    home = tmp_path_factory.mktemp("home")
    spill = home / ("long" * 20)
    spill.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        env={**kept, "HOME": str(home), "TMPDIR": str(spill)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    yield Driver(process, home, spill, json.loads(line))
    process.kill()
    process.wait()


pytestmark = [pytest.mark.engine, pytest.mark.distributed]


def test_the_token_is_made_for_its_owner_alone(driver: Driver) -> None:
    file = driver.home / ".ray" / "auth_token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_it_listens_on_loopback_alone(driver: Driver) -> None:
    listening = addresses([psutil.Process(driver.process.pid), *driver.family()])
    assert {address for address, _ in listening} == {"127.0.0.1"}
    assert driver.told["address"].startswith("127.0.0.1:")


@needs_root
def test_another_user_cannot_enter_its_folders(driver: Driver) -> None:
    """Ray makes the session folder writable for everybody: the folder above it is closed."""
    session = Path(driver.told["session"])
    assert stat.S_IMODE(session.stat().st_mode) == 0o777
    (spilled,) = driver.spill.glob("alphafuse-ray-*")
    for folder in (session.parent, spilled):
        assert stat.S_IMODE(folder.lstat().st_mode) == 0o700
        # Opened for the attack: the folders above it belong to the tests.
        for above in [each for each in folder.parents if each.stat().st_uid == os.geteuid() and each != Path("/")][:-1]:
            above.chmod(above.stat().st_mode | 0o755)
        plant = "import pathlib, sys; pathlib.Path(sys.argv[1], 'package').write_text('hostile')"
        inside = session if folder == session.parent else spilled / "objects"
        assert "PermissionError" in as_nobody(plant, inside).stderr
        assert "PermissionError" in as_nobody("import os, sys; os.listdir(sys.argv[1])", inside).stderr


def test_every_process_ends_soon_after_its_driver_was_killed(driver: Driver) -> None:
    family = driver.family()
    assert len(family) > 6
    assert any(process.name() == "sleep" for process in family)
    driver.process.kill()
    driver.process.wait()
    _, alive = psutil.wait_procs(family, timeout=ENDED_SECONDS)
    assert [process.cmdline() for process in alive] == []
    deadline = time.monotonic() + ENDED_SECONDS
    while Path(driver.told["session"]).parent.exists() or list(driver.spill.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (None, False),
        (KeyboardInterrupt(), False),
        (DataError("x"), False),
        (ResourceError("x"), True),
        (OSError(), True),
    ],
)
def test_the_logs_of_ray_are_kept_where_they_may_explain_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, kept: int
) -> None:
    for name, folder in (("RAY_TMPDIR", "sockets"), ("HOME", "home")):
        monkeypatch.setenv(name, str(tmp_path / folder))
        (tmp_path / folder).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "home"))
    with suppress(KeyboardInterrupt, Exception), embedded_cluster() as settings:
        Path(settings["_temp_dir"], "session_latest", "logs").mkdir(parents=True)
        Path(settings["object_spilling_directory"]).mkdir()
        if error is not None:
            raise error
    assert len(list((tmp_path / "sockets").iterdir())) == kept
    assert [path.name for path in (tmp_path / "home").iterdir()] == [".ray"]


def test_who_only_reads_a_log_or_writes_elsewhere_is_spared(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "log").write_text("told\n")
    script = "import sys; file = open(sys.argv[1], sys.argv[2]); print(); sys.stdin.read()"
    places = [("mine/log", "r"), ("mine/log", "a"), ("mine-not", "w")]
    others = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / name), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for name, mode in places
    ]
    for other in others:
        assert other.stdout is not None
        other.stdout.readline()
    reap([str(tmp_path / "mine")])
    assert [other.poll() is None for other in others] == [True, False, True]
    assert not (tmp_path / "mine").exists()
    for other in others:
        other.communicate()
