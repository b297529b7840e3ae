"""Checks that a cluster can hold the workers of a stage, as it is or once it has grown, and reach the workspace.

Without these checks Ray would wait without end.

A *pool* is a part of the cluster's machines, those that have a custom resource of its name. Each worker of a stage
with a pool takes a sliver of it, so that the scheduler and any autoscaler find the right machines.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from alphafuse.config import NodeGroupConfig
from alphafuse.config.sections.resources import Resources
from alphafuse.errors import ResourceError
from alphafuse.storage.workspace import Workspace

POOL_SHARE = 0.001
"""Amount of a pool's resource that a worker takes: a machine that has 1 of it runs out of CPUs first."""
SLIVER = 0.001
"""Share of a GPU that a task takes which must run beside a GPU and does not compute on it."""

_NONE: Mapping[str, NodeGroupConfig] = MappingProxyType({})
_node_groups: ContextVar[Mapping[str, NodeGroupConfig]] = ContextVar("node_groups", default=_NONE)


_seen_machines: ContextVar[list[dict[str, float]] | None] = ContextVar("seen_machines", default=None)


@contextmanager
def growing(groups: Mapping[str, NodeGroupConfig], machines: list[dict[str, float]] | None = None) -> Iterator[None]:
    """Count, within the block, the machines of these groups as those that the cluster may add.

    Args:
        machines: resources of each machine of a cluster that this process is not connected to; None: it is connected.
    """
    before = _node_groups.set(groups), _seen_machines.set(machines)
    try:
        yield
    finally:
        _node_groups.reset(before[0])
        _seen_machines.reset(before[1])


def beside_this_process() -> NodeAffinitySchedulingStrategy:
    """Place for an actor or task that must be on the machine of this process and on no other."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def on_pool(pool: str | None) -> dict[str, float]:
    """Custom resources that a worker asks for, to land on the machines of a pool."""
    return {} if pool is None else {pool: POOL_SHARE}


def task_options(resources: Resources) -> dict[str, Any]:
    """Options of a Ray task or actor that takes the place of one worker."""
    options: dict[str, Any] = {"num_cpus": resources.cpus, "resources": on_pool(resources.pool)}
    if resources.gpus_of_each:
        options["num_gpus"] = resources.gpus_of_each
    if resources.environment:
        options["runtime_env"] = {"env_vars": dict(resources.environment)}
    return options


def room(resources: Resources, *, grown: bool = False, memory: int = 0) -> int:
    """The number of workers that an idle cluster holds, whatever number is asked for.

    Args:
        grown: also count machines that the cluster may add.
        memory: bytes that each worker needs of its machine's memory; one of which that is not known has enough.
    """
    asked = {"CPU": resources.cpus, "GPU": resources.gpus_of_each, "memory": memory}
    needs = {name: amount for name, amount in asked.items() if amount}
    if not needs:
        return resources.fewest_workers
    pool = resources.pool
    machines = [*_machines(), *(_to_come() if grown else ())]
    there = [machine for machine in machines if pool is None or machine.get(pool, 0) > 0]
    missing = {"memory": math.inf}
    places = (min(machine.get(name, missing.get(name, 0)) // need for name, need in needs.items()) for machine in there)
    return sum(int(number) for number in places)


def require_places(key: str, resources: Resources, workers: int | None = None) -> None:
    """Check that workers fit on the machines that the cluster has or may add.

    Args:
        key: key of the resources in the configuration, for messages.
        workers: number of workers; None: the fewest that the resources allow.

    Raises:
        ResourceError: the workers do not fit.
    """
    workers = workers or resources.fewest_workers
    places = room(resources, grown=True)
    if places < workers:
        raise ResourceError(
            f"{key}.workers asks for {_asked(workers, resources)}, but the cluster has room for {places} "
            f"({_described()}). Lower {key}.workers or what each takes, or use a larger cluster (ray.address, "
            f"ray.num_cpus){_advice(key, resources.pool)}"
        )


def task_slots(key: str, resources: Resources) -> int:
    """Number of tasks that may run at a time: as many as are asked for, or as there is room for, counting the machines
    that the cluster may add.

    Raises:
        ResourceError: there is not room for a single one.
    """
    require_places(key, resources, 1)
    return min(room(resources, grown=True), resources.workers or sys.maxsize)


def missing_places(key: str, resources: Resources) -> str | None:
    """The message to a user whose workers wait for the cluster to grow; None where all have a place at once."""
    workers, places = resources.fewest_workers, room(resources)
    if places >= workers:
        return None
    return (
        f"waiting for machines that the cluster may add (ray.node_groups): {key} asks for "
        f"{_asked(workers, resources)}, and there is room for {places} now"
    )


def require_shared(workspace: Workspace) -> None:
    """Check that every machine of the cluster can reach the workspace.

    Raises:
        ResourceError: the workspace is a folder of this machine, and the cluster has other machines, or may add some.
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
    """Resources of each machine of the cluster."""
    seen = _seen_machines.get()
    return [node["Resources"] for node in ray.nodes() if node["Alive"]] if seen is None else seen


def _to_come() -> list[dict[str, float]]:
    """Resources of the machines that the cluster may still add: of each group, `max_nodes` minus those running."""
    machines, come = _machines(), []
    for name, group in _node_groups.get().items():
        running = sum(machine.get(name, 0) > 0 for machine in machines)
        come += [{"CPU": group.cpus, "GPU": group.gpus, name: 1.0}] * max(0, group.max_nodes - running)
    return come


def _asked(workers: int, resources: Resources) -> str:
    pool = "" if resources.pool is None else f" on machines of the pool {resources.pool!r}"
    return f"{workers} workers with {resources.cpus:g} CPUs and {resources.gpus_of_each:g} GPUs each{pool}"


def _advice(key: str, pool: str | None) -> str:
    advice = "; for a cluster that grows by itself, name the machines that it may add in ray.node_groups"
    if pool is not None:
        advice += (
            f"; a machine is in the pool if it has the custom resource {pool!r} "
            f"(`ray start --resources`), see {key}.pool"
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
