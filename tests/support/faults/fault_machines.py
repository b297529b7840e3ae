"""Machines that join the shared cluster for a test and may be lost in it: separate raylets on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import ray
from ray.cluster_utils import Cluster
from support.processes.waiting import wait_until

CPUS = 5
"""CPUs of each machine. The first machine of the cluster has fewer, so that work that asks for as many runs on these
machines alone."""
DEADLINE_SECONDS = 600.0
"""Longest waiting of a test with faults, each of which may take twice as long."""


class Machines:
    """The machines that a test has added to a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._nodes: list[Any] = []

    def add(self) -> None:
        """Add a machine with `CPUS` CPUs."""
        self._nodes.append(self._cluster.add_node(num_cpus=CPUS))

    def alive(self) -> int:
        """Number of added machines that the cluster takes to be alive."""
        return sum(node["Alive"] and node["Resources"].get("CPU") == CPUS for node in ray.nodes())

    def remove_all(self) -> None:
        for node in self._nodes:
            self._cluster.remove_node(node)
        wait_until(lambda: self.alive() == 0, DEADLINE_SECONDS)


@contextlib.contextmanager
def joined(cluster: Cluster, count: int) -> Iterator[Machines]:
    """Context in which `count` machines have joined; they are removed at its end."""
    machines = Machines(cluster)
    try:
        for _ in range(count):
            machines.add()
        yield machines
    finally:
        machines.remove_all()
