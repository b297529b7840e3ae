"""The section `monitoring`: metrics for Prometheus, and experiment tracking."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from alphafuse.config.base import Section


class TensorBoardConfig(Section):
    """Curves for TensorBoard."""

    folder: str | None = None
    """Folder or URI, in which each training has a folder of its own; null: `tensorboard/` in the workspace."""


class MLflowConfig(Section):
    """A run on an MLflow server."""

    uri: str
    """URI of the tracking server: "http://host:5000"."""
    experiment: str = "alphafuse"
    """Name of the experiment that runs belong to."""


class MonitoringConfig(Section):
    """Metrics for Prometheus (docs/monitoring.md), and experiment tracking (docs/dashboard.md)."""

    metrics: bool = True
    """Serve metrics from the run's own process and from every worker, and list their addresses for Prometheus."""
    host: str | None = None
    """Address that metrics are served on; null: the loopback address with an embedded Ray, else each machine's
    address in the cluster."""
    first_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """First port that a process tries; it takes the first free one from there on. For firewalls that let only some
    ports through; null: any port."""
    targets: str | None = None
    """Local folder where runs list the addresses of their processes; null: one for this user and machine, in
    `~/.local/state/alphafuse/targets`."""
    tensorboard: TensorBoardConfig | None = None
    """Curves for TensorBoard; null: none are written."""
    mlflow: MLflowConfig | None = None
    """Settings, curves and results in MLflow; null: none are kept there."""
