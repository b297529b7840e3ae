"""The section `ray`: where the jobs run, and what that cluster may grow to."""

from __future__ import annotations

from pydantic import Field

from alphafuse.config.base import Count, NonNegative, Section


class NodeGroupConfig(Section):
    """Machines of one kind that an autoscaling cluster adds when they are needed."""

    max_nodes: Count
    """Most machines of this kind, those running included."""
    cpus: NonNegative = 0
    """CPUs of each machine."""
    gpus: NonNegative = 0
    """GPUs of each machine."""


class RayConfig(Section):
    """The Ray cluster that jobs run on."""

    address: str | None = None
    """Address of an existing cluster ("auto", "host:port", "ray://…"); null: an embedded one on this machine."""
    num_cpus: Count | None = None
    """CPUs of the embedded cluster; null: all of the machine."""
    node_groups: dict[str, NodeGroupConfig] = Field(default_factory=dict)
    """Groups of machines that an autoscaling cluster may add, by name; each machine has a custom resource of that
    name. A stage that finds no room yet waits for them. `alphafuse submit --grows FILE` fills this in."""
