"""Reads from a launch file how many machines a cluster may have: from a configuration of Ray's cluster launcher, or a
KubeRay manifest with a RayCluster or RayJob.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alphafuse.config import NodeGroupConfig
from alphafuse.config.bounded_yaml import load_yaml_documents
from alphafuse.errors import ConfigError


def read_node_groups(path: Path) -> dict[str, NodeGroupConfig]:
    """Read the node types (launcher) or worker groups (KubeRay) of a file, without the head, by name.

    Raises:
        ConfigError: the file cannot be read, or has no machines that a cluster may add.
    """
    try:
        content = load_yaml_documents(path.read_bytes(), path)
        documents = [each for each in content if isinstance(each, dict)]
        groups = {name: group for document in documents for name, group in _groups(document).items()}
    except OSError as error:
        raise ConfigError(f"cannot read the launch file {path}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the launch file {path} is neither a launcher configuration nor a KubeRay manifest: {error!r}"
        ) from error
    if not groups:
        raise ConfigError(
            f"{path} names no machines that a cluster may add: expected `available_node_types` with `max_workers`, or "
            "a RayCluster or RayJob with `workerGroupSpecs`"
        )
    return groups


def _groups(document: dict[str, Any]) -> dict[str, NodeGroupConfig]:
    if "available_node_types" in document:
        types = document["available_node_types"]
        return {
            name: NodeGroupConfig(
                max_nodes=node.get("max_workers", document.get("max_workers", 0)),
                cpus=node["resources"].get("CPU", 0),
                gpus=node["resources"].get("GPU", 0),
            )
            for name, node in types.items()
            if name != document["head_node_type"]
        }
    spec = document.get("spec", {})
    workers = spec.get("rayClusterSpec", spec).get("workerGroupSpecs", [])
    return {worker["groupName"]: _worker_group(worker) for worker in workers}


def _worker_group(worker: dict[str, Any]) -> NodeGroupConfig:
    limits = worker["template"]["spec"]["containers"][0]["resources"]["limits"]
    cpus = str(limits["cpu"])
    return NodeGroupConfig(
        max_nodes=worker["maxReplicas"],
        # A value ending in m is in thousandths; fractions of a CPU are dropped.
        cpus=int(cpus.removesuffix("m")) // 1000 if cpus.endswith("m") else int(float(cpus)),
        gpus=int(limits.get("nvidia.com/gpu", 0)),
    )
