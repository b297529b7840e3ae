"""Connects what workers report to the metrics of their own process, and to the driver.

A worker serves its metrics itself; the driver only hears where (event `serving`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from alphafuse.config import Config
from alphafuse.events import Event, Listener
from monitoring.metrics.exporter import Exporter
from monitoring.metrics.worker_recorder import WorkerRecorder

LOOPBACK = "127.0.0.1"
LOCAL_KINDS = ("step", "batch")
"""Events that come too often to travel: they end in the worker's metrics."""


@dataclass(frozen=True)
class Serving:
    """Where processes serve their metrics.

    Attributes:
        host: address; None: that of the machine in the cluster.
        first_port: as `MonitoringConfig.first_port`.
    """

    host: str | None
    first_port: int | None

    def exporter(self) -> Exporter:
        """Begin to serve the metrics of this process."""
        return Exporter(self.host or ray.util.get_node_ip_address(), self.first_port)


def serving(config: Config) -> Serving | None:
    """Where the processes of a run serve their metrics; None if they do not."""
    monitoring = config.monitoring
    if not monitoring.metrics:
        return None
    return Serving(monitoring.host or (LOOPBACK if config.ray.address is None else None), monitoring.first_port)


def no_more_workers(stage: str) -> Event:
    """The event that says that no worker of a stage serves its metrics any more."""
    return Event(stage, "serving", {"worker": None, "address": None, "workers": 0})


@contextmanager
def served(
    stage: str, worker: str, settings: Serving | None, tell: Listener, workers: int | None = None
) -> Iterator[Listener]:
    """A listener for what a worker reports, and the serving of its metrics for the time of the block.

    Args:
        worker: names this one among the workers of the stage; a process that takes its place has the same name.
        tell: carries events to the driver.
        workers: how many there are, where they are named by their ranks: those of higher ranks are gone.
    """

    def pass_on(event: Event) -> None:
        if event.kind not in LOCAL_KINDS:
            tell(event)

    if settings is None:
        yield pass_on
        return
    with settings.exporter() as exporter:
        record = WorkerRecorder(exporter.registry, stage)

        def hear(event: Event) -> None:
            record(event)
            pass_on(event)

        tell(Event(stage, "serving", {"worker": worker, "address": exporter.address, "workers": workers}))
        yield hear
