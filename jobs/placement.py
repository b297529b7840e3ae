"""Whether a cluster can hold what a stage asks of it, and reach what it writes: Ray would wait without end."""

from __future__ import annotations

import ray

from alphafuse.errors import ResourceError
from alphafuse.workspace import Workspace


def room(cpus: float, gpus: float = 0) -> int:
    """How many workers of `cpus` CPUs and `gpus` GPUs each, one of which is more than 0, an idle cluster holds."""
    wanted = {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
    return sum(int(min(node.get(name, 0) // amount for name, amount in wanted.items())) for node in _machines())


def require_places(section: str, workers: int, cpus: float, gpus: float = 0) -> None:
    """Check that `workers` of `cpus` CPUs and `gpus` GPUs each fit on the machines of the cluster.

    Args:
        section: of the configuration, for messages.

    Raises:
        ResourceError: they do not.
    """
    places = room(cpus, gpus) if cpus or gpus else workers
    if places < workers:
        nodes = _machines()
        have = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes[:8])
        raise ResourceError(
            f"{section}.workers asks for {workers} workers with {cpus:g} CPUs and {gpus:g} GPUs each, but the cluster "
            f"has room for {places} ({len(nodes)} machines: {have}{', …' if len(nodes) > 8 else ''}). Lower "
            f"{section}.workers or what each takes ({section}.*_per_worker), or use a larger cluster (ray.address, "
            "ray.num_cpus)"
        )


def require_shared(workspace: Workspace) -> None:
    """Check that every machine of the cluster can reach the workspace.

    Raises:
        ResourceError: it is a folder of this machine, and the cluster has others.
    """
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if "://" not in workspace.folder.uri and len(machines) > 1:
        raise ResourceError(
            f"the workspace {workspace.folder.uri} is a folder of one machine, the cluster has {len(machines)}. "
            "Give a URI that all of them reach (s3://…, gs://…), or, if they share this folder, "
            f"workspace: file://{workspace.folder.uri}"
        )


def _machines() -> list[dict[str, float]]:
    """What each machine of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
