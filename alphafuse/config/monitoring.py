"""The section on how a run is watched."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from alphafuse.config.section import Section


class MonitoringConfig(Section):
    """Metrics for Prometheus (docs/monitoring.md)."""

    metrics: bool = True
    """Serve metrics from the run's own process and from every worker, and list their addresses for Prometheus."""
    host: str | None = None
    """Address that they are served on; null: the loopback address with an embedded Ray, else that of each machine in
    the cluster."""
    first_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Each process takes the first free port from here on, where a firewall lets only some through; null: any."""
    targets: str | None = None
    """Local folder of the lists of addresses; null: `alphafuse/targets` in the system's folder for temporary files."""
