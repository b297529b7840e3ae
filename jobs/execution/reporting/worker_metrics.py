"""Everything that listens to a worker: the metrics of its own process, and the driver.

A worker serves its metrics itself; the driver is told where (`WorkerServing`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from alphafuse.config import Config
from alphafuse.events import FanOut, Listener, WorkerServing
from jobs.execution.reporting.event_relay import ToDriver
from monitoring.metrics.exporter import Exporter
from monitoring.metrics.worker_recorder import WorkerRecorder

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Serving:
    """Address on which processes serve their metrics.

    Attributes:
        host: host name or address; None: that of the machine in the cluster.
        first_port: see `MonitoringConfig.first_port`.
    """

    host: str | None
    first_port: int | None

    def exporter(self) -> Exporter:
        """Begin to serve the metrics of this process."""
        return Exporter(self.host or ray.util.get_node_ip_address(), self.first_port)


def serving(config: Config) -> Serving | None:
    """Address on which the processes of a run serve their metrics; None if they do not."""
    monitoring = config.monitoring
    if not monitoring.metrics:
        return None
    return Serving(monitoring.host or (LOOPBACK if config.ray.address is None else None), monitoring.first_port)


@contextmanager
def worker_listener(
    stage: str, worker: str, settings: Serving | None, send: Listener, workers: int | None = None
) -> Iterator[Listener]:
    """The listener that a worker reports to; its metrics are served for the time of the block.

    Args:
        worker, workers: see `WorkerServing`.
        send: carries events to the driver.
    """
    driver = ToDriver(send)
    if settings is None:
        yield driver
        return
    with settings.exporter() as exporter:
        driver(WorkerServing(stage, worker, exporter.address, workers))
        yield FanOut(WorkerRecorder(exporter.registry, stage), driver)
