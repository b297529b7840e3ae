"""The metrics of one replica of the web service (`definitions.SERVE_METRICS`), and those of all replicas as one page.

A scrape reaches any one of the replicas. So each of them knows the latest metrics of all, with the label `replica`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client import Metric as Family
from prometheus_client.registry import REGISTRY, Collector
from prometheus_client.samples import Sample

from monitoring.metrics import definitions as m

ENDPOINTS = ("recommend", "similar")


class ServingRecorder:
    """Counts what one replica does."""

    def __init__(self) -> None:
        disable_created_metrics()
        self._registry = CollectorRegistry()
        self._metrics = m.Instruments(self._registry, m.SERVE_METRICS)
        self._version: str | None = None
        for endpoint in ENDPOINTS:
            self._metrics.add(m.SERVE_REQUESTS, 0, endpoint, 200)  # an increase is seen only over an earlier value
        for outcome in ("swapped", "refused"):
            self._metrics.add(m.SERVE_RELOADS, 0, outcome)

    def on_request(self, endpoint: str, code: int, seconds: float) -> None:
        """Count an answered request."""
        self._metrics.add(m.SERVE_REQUESTS, 1, endpoint, code)
        self._metrics.observe(m.SERVE_SECONDS, seconds, endpoint)

    def on_batch(self, seconds: float, asked: int, unknown: int) -> None:
        """Count a batch.

        Args:
            asked, unknown: items of its histories, and those that the catalog does not have.
        """
        self._metrics.add(m.SERVE_BATCHES, 1)
        self._metrics.observe(m.SERVE_RANKING, seconds)
        self._metrics.add(m.SERVE_ASKED, asked)
        self._metrics.add(m.SERVE_UNKNOWN, unknown)

    def on_model(self, version: str, items: int) -> None:
        """Note the model that is served from now on."""
        if self._version is not None:
            self._metrics.drop(m.SERVE_LOADED, self._version)
        self._version = version
        self._metrics.set(m.SERVE_LOADED, time.time(), version)
        self._metrics.set(m.SERVE_ITEMS, items)

    def on_reload(self, outcome: str) -> None:
        """Count an attempt to serve another model: `swapped` or `refused`."""
        self._metrics.add(m.SERVE_RELOADS, 1, outcome)

    def on_look(self, outdated: bool) -> None:
        """Note whether another model than the served one is wanted."""
        self._metrics.set(m.SERVE_OUTDATED, float(outdated))

    def families(self) -> list[Family]:
        """The metrics of this replica and of its process, as they are now."""
        return [*self._registry.collect(), *REGISTRY.collect()]


def merged_page(replicas: Mapping[str, Iterable[Family]]) -> bytes:
    """One page in the format of Prometheus with the metrics of all replicas.

    Args:
        replicas: the metrics of each, by the value of the label `replica`.
    """
    merged: dict[str, Family] = {}
    for replica, families in replicas.items():
        for family in families:
            into = merged.setdefault(family.name, Family(family.name, family.documentation, family.type))
            into.samples += [_labelled(sample, replica) for sample in family.samples]
    page: bytes = generate_latest(_Page(list(merged.values())))
    return page


def _labelled(sample: Sample, replica: str) -> Sample:
    return sample._replace(labels={**sample.labels, "replica": replica})


class _Page(Collector):
    """Families that are made already, as `generate_latest` takes them."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families
