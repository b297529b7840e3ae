"""Serves the metrics of this process over HTTP, for Prometheus to scrape."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from types import TracebackType

from prometheus_client import REGISTRY, CollectorRegistry, Metric, disable_created_metrics, start_http_server
from prometheus_client.registry import Collector

from alphafuse.errors import ResourceError
from monitoring.metrics.storage_retries import StorageRetries

PORTS = 1000
"""Number of ports that are tried, beginning with the first one."""
PATIENCE_INTERVALS = 3
"""A Prometheus server that has not scraped for this many of its intervals is not waited for."""
PATIENCE_SECONDS = 90.0
"""Upper bound of the wait for a scrape: enough for a server that scrapes every minute."""


class Exporter:
    """Context that serves a registry of our metrics and the other metrics of this process (storage, Python, vLLM).

    Args:
        host: address to serve on.
        first_port: the first free port from here on is taken; None takes any free port.

    Attributes:
        registry: registry for the metrics of the caller.
        address: "host:port".

    Raises:
        ResourceError: there is no such address, or no port is free.
    """

    def __init__(self, host: str, first_port: int | None) -> None:
        disable_created_metrics()  # a second series for each counter, which nobody reads
        self.registry = CollectorRegistry()
        self._scrapes = _Scrapes()
        # Registered first, so that values set before a scrape is noted are part of the scrape.
        self.registry.register(self._scrapes)
        self.registry.register(REGISTRY)
        ports = [0] if first_port is None else range(first_port, min(first_port + PORTS, 65536))
        for port in ports:
            try:
                self._server, self._thread = start_http_server(port, host, self.registry)
            except OSError as error:
                reason = error
            else:
                break
        else:
            where = f"{host}:{first_port or ''}"
            raise ResourceError(
                f"metrics cannot be served on {where}: {reason.strerror}. Correct monitoring.host or "
                "monitoring.first_port, or set monitoring.metrics to false"
            ) from reason
        self._storage_retries = StorageRetries(self.registry)
        self._storage_retries.start()
        self.address = f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    def __enter__(self) -> Exporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving, and free the port. Does nothing while Python shuts down: the serving thread is gone by then,
        and joining it would never return."""
        if sys.is_finalizing():
            return
        self._storage_retries.stop()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def await_scrape(self) -> None:
        """Wait until this process is scraped once more, if it is scraped regularly. Without waiting, its last values
        would be lost."""
        self._scrapes.await_next()

    @property
    def _port(self) -> int:
        return self._server.server_port


class _Scrapes(Collector):
    """A collector without metrics that notes the times of the scrapes."""

    def __init__(self) -> None:
        self._last_two: deque[float] = deque(maxlen=2)
        self._noted = threading.Condition()

    def collect(self) -> list[Metric]:
        with self._noted:
            self._last_two.append(time.monotonic())
            self._noted.notify_all()
        return []

    def await_next(self) -> None:
        with self._noted:
            if len(self._last_two) < 2:
                return
            before, last = self._last_two
            patience = min(PATIENCE_INTERVALS * (last - before), PATIENCE_SECONDS)
            left = last + patience - time.monotonic()
            self._noted.wait_for(lambda: self._last_two[-1] > last, timeout=max(0.0, left))
