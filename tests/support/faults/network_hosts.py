"""Hosts with addresses of their own: network namespaces on a bridge, each with a raylet, whose links can be cut."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

import pytest
from support.faults.fault_machines import DEADLINE_SECONDS
from support.processes.waiting import wait_until

SUBNET = "10.231.77"
BRIDGE = "afbridge"
HEALTH = {"health_check_period_ms": 500, "health_check_failure_threshold": 20, "health_check_timeout_ms": 2000}


class Hosts:
    """A head without CPUs at `SUBNET`.1, and `count` hosts with one CPU each from `SUBNET`.2 on.

    Attributes:
        address: address of the cluster, for `ray.address`.
        environment: environment variables of processes that connect to the cluster.
    """

    def __init__(self, count: int) -> None:
        self._names = [f"afhost{number}" for number in range(count)]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._folder = Path(tempfile.mkdtemp(prefix="ray"))  # short, since paths of sockets are limited
        self.environment = os.environ | {"RAY_TMPDIR": str(self._folder), "RAY_AUTH_MODE": "disabled", "PYTHONPATH": ""}

    def __enter__(self) -> Hosts:
        if shutil.which("ip") is None or os.geteuid() != 0:
            pytest.skip("network namespaces need root and the command `ip`")
        allowed = _ip("link", "add", BRIDGE, "type", "bridge", check=False)
        if allowed.returncode:
            pytest.skip(f"network namespaces cannot be made here: {allowed.stderr.strip()}")
        try:
            self._connect()
            self._start_ray()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):  # it did not start
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for name in self._names:
            listed = _ip("netns", "pids", name, check=False).stdout.split()
            for pid in map(int, listed):  # workers of a raylet that was killed
                os.kill(pid, signal.SIGKILL)
            _ip("link", "delete", f"{name}v", check=False)
            _ip("netns", "delete", name, check=False)
        _ip("link", "delete", BRIDGE, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def cut(self, number: int) -> None:
        """Cut the link of host `number`; nobody is notified."""
        _ip("link", "set", f"{self._names[number]}v", "down")

    def _connect(self) -> None:
        _ip("address", "add", f"{SUBNET}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        for number, name in enumerate(self._names):
            _ip("netns", "add", name)
            _ip("link", "add", f"{name}v", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", f"{name}v", "master", BRIDGE, "up")
            _ip("-n", name, "address", "add", f"{SUBNET}.{number + 2}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def _start_ray(self) -> None:
        start = ["ray", "start", "--block", "--disable-usage-stats"]
        head = ["--head", "--port=0", f"--node-ip-address={SUBNET}.1", "--num-cpus=0"]
        head += ["--include-dashboard=false", f"--system-config={json.dumps(HEALTH)}"]
        self._spawn([*start, *head])
        note = self._folder / "ray" / "ray_current_cluster"
        wait_until(note.exists, DEADLINE_SECONDS)
        self.address = note.read_text().strip()
        for number, name in enumerate(self._names):
            own = [f"--address={self.address}", f"--node-ip-address={SUBNET}.{number + 2}", "--num-cpus=1"]
            self._spawn(["ip", "netns", "exec", name, *start, *own])

    def _spawn(self, command: list[str]) -> None:
        """Start a raylet and wait for it. Raylets that start at the same time take the same name for their sockets,
        which lie in one folder here; one of the raylets then never joins."""
        bin_folder = Path(sys.executable).parent
        # The interface that ranks listen at. By the host name they would take that of the first host, which others do
        # not reach.
        variables = self.environment | {"GLOO_SOCKET_IFNAME": "eth0", "PATH": f"{bin_folder}:{os.environ['PATH']}"}
        log = self._folder / "output"
        with log.open("ab") as output:
            process = subprocess.Popen(command, env=variables, stdout=output, stderr=output, start_new_session=True)
        self._processes.append(process)
        sockets = "ray/session_2*/sockets/raylet*"
        wait_until(
            lambda: len(list(self._folder.glob(sockets))) == len(self._processes) or process.poll() is not None,
            DEADLINE_SECONDS,
        )
        assert process.poll() is None, log.read_text()


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)
