"""Serves the metrics of this process over HTTP, for Prometheus to scrape."""

from __future__ import annotations

from types import TracebackType

from prometheus_client import REGISTRY, CollectorRegistry, disable_created_metrics, start_http_server

from alphafuse.errors import ResourceError

PORTS = 1000
"""How many ports from the first one on are tried."""


class Exporter:
    """A context: serves a registry of our metrics, and beside them what else this process has (Python, vLLM).

    Args:
        host: address to serve on.
        first_port: the first free port from here on is taken; None: any.

    Attributes:
        registry: where metrics are to be registered.
        address: "host:port".

    Raises:
        ResourceError: there is no such address, or no port is free.
    """

    def __init__(self, host: str, first_port: int | None) -> None:
        disable_created_metrics()  # a second series for each counter, which nobody reads
        self.registry = CollectorRegistry()
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
        self.address = f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    def __enter__(self) -> Exporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving, and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def _port(self) -> int:
        return self._server.server_port
