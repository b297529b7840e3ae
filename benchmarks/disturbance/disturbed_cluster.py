"""A Ray cluster on this machine whose processes are killed at random; machines that are lost are replaced."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from types import TracebackType
from typing import Any

import psutil
from ray.cluster_utils import Cluster

REPLACEMENT_SECONDS = 5.0
KINDS = {
    "training worker": ("ray::RayTrainWorker",),
    "embedding engine": ("ray::MapWorker",),
    "machine": (),
    "other worker or actor": ("ray::",),
}
"""Kinds of processes that are killed, each as often as any other that runs, and the beginnings of their names."""
PART_OF_THE_RAYLET = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Processes whose death ends their machine, and on the head the whole cluster."""


class DisturbedCluster:
    """A head without CPUs, and two machines with two CPUs each.

    Attributes:
        address: value for `ray.address`.
        environment: environment variables for processes that connect to the cluster.
        kills: number of killed processes by kind.
    """

    def __init__(self, every: float, generator: random.Random) -> None:
        self.kills: Counter[str] = Counter()
        self.environment = {"RAY_TMPDIR": tempfile.mkdtemp(prefix="ray")}  # short: sockets lie in it
        self._every, self._random = every, generator
        self._lost: dict[Any, float] = {}
        self._next = time.monotonic() + every

    def __enter__(self) -> DisturbedCluster:
        os.environ.update(self.environment)
        system = {"health_check_period_ms": 500, "health_check_failure_threshold": 10}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": system}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = self._cluster.address
        for _ in range(2):
            self._cluster.add_node(num_cpus=2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self.environment["RAY_TMPDIR"], ignore_errors=True)

    def disturb(self) -> None:
        """Kill a process if it is time."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every * self._random.uniform(0.5, 1.5)
        running = {kind: processes for kind, processes in self._processes().items() if processes}
        if not running:
            return  # between two kills in a row there may be nothing that lives
        kind = self._random.choice(sorted(running))
        process = self._random.choice(running[kind])
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return
        self.kills[kind] += 1
        if kind == "machine":
            node = next(node for node in self._cluster.worker_nodes if _raylet(node) == process.pid)
            self._lost[node] = time.monotonic()

    def replace_lost_machines(self) -> None:
        """Add a machine for each that was lost some seconds ago."""
        for node, when in list(self._lost.items()):
            if time.monotonic() > when + REPLACEMENT_SECONDS:
                del self._lost[node]
                self._cluster.remove_node(node)
                self._cluster.add_node(num_cpus=2)

    def _processes(self) -> dict[str, list[psutil.Process]]:
        """Processes that may be killed. A raylet only where the other machine is there: something must be left."""
        found: dict[str, list[psutil.Process]] = {kind: [] for kind in KINDS}
        machines = [node for node in self._cluster.worker_nodes if node not in self._lost]
        if len(machines) > 1:
            found["machine"] = [psutil.Process(_raylet(node)) for node in machines]
        for node in [self._cluster.head_node, *machines]:
            for process in psutil.Process(_raylet(node)).children(recursive=True):
                kind = _kind(process)
                if kind is not None:
                    found[kind].append(process)
        return found


def _raylet(node: Any) -> int:
    return node.all_processes["raylet"][0].process.pid


def _kind(process: psutil.Process) -> str | None:
    """The kind of a process below a raylet; None where it belongs to the raylet or is gone."""
    try:
        name = " ".join(process.cmdline())
    except psutil.Error:
        return None
    if name.startswith(PART_OF_THE_RAYLET):
        return None
    return next((kind for kind, begins in KINDS.items() if begins and name.startswith(begins)), None)
