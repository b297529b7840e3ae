"""Whether a cluster can hold what a stage asks of it, now or once it has grown, and reach what it writes: Ray would
wait without end.

A *pool* is a part of the cluster's machines, those that have a custom resource of its name. Each worker of a stage
with a pool takes a sliver of it, so that the scheduler and any autoscaler find the right machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

import ray

from alphafuse.config import NodeGroupConfig
from alphafuse.errors import ResourceError
from alphafuse.storage.workspace import Workspace

POOL_SHARE = 0.001
"""Of a pool's resource, for each worker: a machine that has 1 of it holds more workers than it has CPUs."""
SLIVER = 0.001
"""Of a GPU, for a task that must run beside one and does not compute on it."""

_NONE: Mapping[str, NodeGroupConfig] = MappingProxyType({})
_node_groups: ContextVar[Mapping[str, NodeGroupConfig]] = ContextVar("node_groups", default=_NONE)


@contextmanager
def growing(groups: Mapping[str, NodeGroupConfig]) -> Iterator[None]:
    """The cluster that this process is connected to may grow, for the time of the block, to these machines."""
    before = _node_groups.set(groups)
    try:
        yield
    finally:
        _node_groups.reset(before)


def on_pool(pool: str | None) -> dict[str, float]:
    """Custom resources that a worker asks for, to land on the machines of a pool."""
    return {} if pool is None else {pool: POOL_SHARE}


def room(cpus: float, gpus: float = 0, pool: str | None = None, *, grown: bool = False) -> int:
    """How many workers of `cpus` CPUs and `gpus` GPUs each, one of which is more than 0, an idle cluster holds.

    Args:
        pool: on the machines of which; None: on any.
        grown: count machines, too, that the cluster may add.
    """
    wanted = {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
    machines = [*_machines(), *(_to_come() if grown else ())]
    there = [machine for machine in machines if pool is None or machine.get(pool, 0) > 0]
    return sum(int(min(machine.get(name, 0) // amount for name, amount in wanted.items())) for machine in there)


def require_places(section: str, workers: int, cpus: float, gpus: float = 0, pool: str | None = None) -> None:
    """Check that `workers` of `cpus` CPUs and `gpus` GPUs each fit on the machines that the cluster has or may add.

    Args:
        section: of the configuration, for messages.
        pool: on the machines of which they must be.

    Raises:
        ResourceError: they do not.
    """
    places = room(cpus, gpus, pool, grown=True) if cpus or gpus else workers
    if places < workers:
        raise ResourceError(
            f"{section}.workers asks for {workers} workers with {cpus:g} CPUs and {gpus:g} GPUs each{_on(pool)}, but "
            f"the cluster has room for {places} ({_described()}). Lower {section}.workers or what each takes "
            f"({section}.*_per_worker), or use a larger cluster (ray.address, ray.num_cpus){_advice(section, pool)}"
        )


def task_slots(section: str, pool: str | None = None) -> int:
    """How many tasks of one CPU each the cluster holds, with the machines that it may add.

    Raises:
        ResourceError: not a single one.
    """
    slots = room(1, 0, pool, grown=True)
    if slots < 1:
        raise ResourceError(
            f"{section} asks for machines with at least one CPU{_on(pool)}, but the cluster has none "
            f"({_described()}). Use another cluster (ray.address){_advice(section, pool)}"
        )
    return slots


def missing_places(section: str, workers: int, cpus: float, gpus: float = 0, pool: str | None = None) -> str | None:
    """What to tell a user whose workers wait for the cluster to grow; None where all have a place at once."""
    places = room(cpus, gpus, pool) if cpus or gpus else workers
    if places >= workers:
        return None
    return (
        f"waiting for machines that the cluster may add (ray.node_groups): {section} asks for {workers} workers with "
        f"{cpus:g} CPUs and {gpus:g} GPUs each{_on(pool)}, and there is room for {places} now"
    )


def require_shared(workspace: Workspace) -> None:
    """Check that every machine of the cluster can reach the workspace.

    Raises:
        ResourceError: it is a folder of this machine, and the cluster has others, or will have.
    """
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if "://" not in workspace.folder.uri and (len(machines) > 1 or _to_come()):
        others = f"has {len(machines)}" if len(machines) > 1 else "may add others"
        raise ResourceError(
            f"the workspace {workspace.folder.uri} is a folder of one machine, the cluster {others}. "
            "Give a URI that all of them reach (s3://…, gs://…), or, if they share this folder, "
            f"workspace: file://{workspace.folder.uri}"
        )


def _machines() -> list[dict[str, float]]:
    """What each machine of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _to_come() -> list[dict[str, float]]:
    """What each machine has that the cluster may still add: of a group, those that are there are among its pool."""
    machines, come = _machines(), []
    for name, group in _node_groups.get().items():
        there = sum(machine.get(name, 0) > 0 for machine in machines)
        come += [{"CPU": group.cpus, "GPU": group.gpus, name: 1.0}] * max(0, group.max_nodes - there)
    return come


def _on(pool: str | None) -> str:
    return "" if pool is None else f" on machines of the pool {pool!r}"


def _advice(section: str, pool: str | None) -> str:
    advice = "; where it grows by itself, say to what in ray.node_groups"
    if pool is not None:
        advice += (
            f"; a machine is in the pool if it has the custom resource {pool!r} "
            f"(`ray start --resources`), see {section}.pool"
        )
    return advice


def _described() -> str:
    """The machines, for messages."""
    machines = _machines()
    have = ", ".join(_sizes(machine) for machine in machines[:8]) + (", …" if len(machines) > 8 else "")
    come = "".join(
        f"; may grow to {group.max_nodes} of {name!r} with {group.cpus:g} CPUs and {group.gpus:g} GPUs"
        for name, group in _node_groups.get().items()
    )
    return f"{len(machines)} machines: {have}{come}"


def _sizes(machine: Mapping[str, float]) -> str:
    return f"{machine.get('CPU', 0):g} CPUs and {machine.get('GPU', 0):g} GPUs"
