"""Serves facts about the versions of a registry to Prometheus: those that have an alias.

The registry is read at every scrape. If it cannot be read the scrape fails, and `up` tells so.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from alphafuse.errors import ResourceError
from alphafuse.registry.aliases import NAMES
from alphafuse.registry.version import Version
from alphafuse.registry.version_registry import Registry
from alphafuse.serving.deltas import find_deltas
from alphafuse.storage.workspace import Workspace
from monitoring.metrics import definitions as m


@contextmanager
def serve(registry: Registry, host: str, port: int) -> Iterator[str]:
    """Context in which the facts are served; yields the address.

    Args:
        port: port to listen on; 0 takes a free one.

    Raises:
        ResourceError: the address does not exist, or the port is taken.
        WorkspaceError: the registry is damaged.
    """
    metrics = CollectorRegistry()
    metrics.register(RegistryCollector(registry))
    try:
        server, thread = start_http_server(port, host, metrics)
    except OSError as error:
        raise ResourceError(f"cannot serve on {host}:{port}: {error.strerror}") from error
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class RegistryCollector(Collector):
    """Gives the metrics of `REGISTRY_METRICS` that are known of each version with an alias."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = {each: GaugeMetricFamily(each.name, each.help, labels=each.labels) for each in m.REGISTRY_METRICS}
        aliases = self._registry.aliases()
        for alias in NAMES:
            version_id = getattr(aliases, alias)
            if version_id is not None:
                for metric, value in _facts(self._registry.version(version_id)).items():
                    families[metric].add_metric([alias], value)
        yield from families.values()


def _facts(version: Version) -> dict[m.Metric, float]:
    deltas = [delta.require() for delta in find_deltas(Workspace(version.workspace).artifact("export"))]
    added, removed = sum(each.rows for each in deltas), sum(each.details["removed"] for each in deltas)
    created = datetime.datetime.fromisoformat(version.created).timestamp()
    drift, stability = version.drift or {}, version.stability or {}
    facts = {
        m.MODEL_CREATED: created,
        m.MODEL_ITEMS: version.items + added - removed,
        m.MODEL_UNTRAINED: added,
        m.MODEL_TRAINING: version.train_seconds,
        m.MODEL_LOST_ENERGY: drift.get("lost_energy"),
        m.MODEL_DISTORTION: drift.get("distortion"),
        m.MODEL_OVERLAP: stability.get("overlap"),
    }
    return {metric: value for metric, value in facts.items() if value is not None}
