"""Machines that join the shared cluster for a test and may be lost in it: separate raylets on this one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import ray
from ray.cluster_utils import Cluster

CPUS = 5
"""Of each: more than the first machine of the cluster has, so that what asks for so many runs on these alone."""
DEADLINE_SECONDS = 600


class Machines:
    """What a test has added to a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._nodes: list[Any] = []

    def add(self) -> None:
        """A machine with `CPUS` CPUs joins."""
        self._nodes.append(self._cluster.add_node(num_cpus=CPUS))

    def alive(self) -> int:
        """How many of them the cluster believes in."""
        return sum(node["Alive"] and node["Resources"].get("CPU") == CPUS for node in ray.nodes())

    def remove_all(self) -> None:
        for node in self._nodes:
            self._cluster.remove_node(node)
        wait_until(lambda: self.alive() == 0)


@contextlib.contextmanager
def joined(cluster: Cluster, count: int) -> Iterator[Machines]:
    """So many machines, gone again after the block."""
    machines = Machines(cluster)
    try:
        for _ in range(count):
            machines.add()
        yield machines
    finally:
        machines.remove_all()


def wait_until(condition: object) -> None:
    """Wait for a condition, with patience."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
