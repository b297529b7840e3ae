"""The section `ray`: where the jobs run, and what that cluster may grow to."""

from __future__ import annotations

from pydantic import Field

from alphafuse.config.base import Count, NonNegative, Section


class NodeGroupConfig(Section):
    """Machines of one kind that an autoscaling cluster adds when they are needed."""

    max_nodes: Count
    """Largest number of machines, including those that are running."""
    cpus: NonNegative = 0
    """CPUs of each machine."""
    gpus: NonNegative = 0
    """GPUs of each machine."""


class RayConfig(Section):
    """Where the jobs run."""

    address: str | None = None
    """Address of an existing cluster ("auto", "host:port", "ray://…"); null: an embedded one on this machine."""
    num_cpus: Count | None = None
    """CPUs of the embedded cluster; null: all of the machine."""
    node_groups: dict[str, NodeGroupConfig] = Field(default_factory=dict)
    """What an autoscaling cluster may grow to, by the name of the group, whose machines have a custom resource of this
    name: a stage that finds no room yet then waits for them. `alphafuse submit --grows FILE` fills this in."""
