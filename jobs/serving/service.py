"""Runs the web service until it is interrupted, and lists it for Prometheus meanwhile."""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from ray import serve

from alphafuse.config import MonitoringConfig, RayConfig
from alphafuse.config.sections.serve import ServeConfig
from alphafuse.errors import ResourceError
from jobs.execution.ray_connection import connected
from jobs.execution.token_file import SERVICE, ensure_token
from jobs.serving.application import APPLICATION, make_application
from jobs.serving.load_balancer import load_balancer
from jobs.serving.model_source import ModelSource
from monitoring.metrics.targets import Target, TargetFile

LISTING_SECONDS = 10.0
"""Seconds after which the list for Prometheus is marked as that of a living service."""
REQUEST_SECONDS = 60.0
"""Seconds after which the service gives up a request."""


def run(
    source: ModelSource, settings: ServeConfig, ray: RayConfig, monitoring: MonitoringConfig, ready: Callable[[], None]
) -> None:
    """Serve until the process is interrupted.

    Args:
        ready: called when the service answers.

    Raises:
        AlphafuseError: there is no model, the port is taken, or the service does not start.
    """
    source.current()  # raises before anything is started
    if ray.address is None:
        _require_free(settings)
    token = ensure_token(SERVICE)
    with (
        load_balancer(settings.host) if ray.address is None else nullcontext(),
        connected(ray),
        _served(source, settings, token, ray.address is not None),
        _listed(settings, monitoring) as keep_listed,
    ):
        ready()
        while True:
            with suppress(OSError):  # a full disk ends no service
                keep_listed()
            time.sleep(LISTING_SECONDS)


@contextmanager
def _served(source: ModelSource, settings: ServeConfig, token: str, on_cluster: bool) -> Iterator[None]:
    """Context in which the application runs.

    Args:
        on_cluster: the cluster goes on without the application; an embedded one ends with it, however it is stopped.

    Raises:
        ResourceError: no replica starts.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    options = {"host": settings.host, "port": settings.port, "request_timeout_s": REQUEST_SECONDS}
    serve.start(http_options=options)
    try:
        try:
            serve.run(make_application(source, settings, token), name=APPLICATION)
        except RuntimeError as error:
            found = serve.status().applications.get(APPLICATION)
            messages = [each.message for each in found.deployments.values()] if found is not None else []
            raise ResourceError(f"no replica starts: {last_line(messages[0] if messages else str(error))}") from error
        yield
    finally:
        if on_cluster:
            serve.delete(APPLICATION)  # and nothing else of Ray Serve, which others of the cluster may use


@contextmanager
def _listed(settings: ServeConfig, monitoring: MonitoringConfig) -> Iterator[Callable[[], None]]:
    """Context in which Prometheus finds the service; yields a function that must be called now and then."""
    if not monitoring.metrics:
        yield lambda: None
        return
    name = f"serve-{socket.gethostname()}-{settings.port}"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    target = Target(f"{host}:{settings.port}", {"job": "alphafuse", "role": "serve", "run": name})
    file = TargetFile(Path(monitoring.targets) if monitoring.targets else None, name)
    try:
        yield lambda: file.write([target])
    finally:
        with suppress(OSError):
            file.remove()


def last_line(message: str) -> str:
    """The message of an exception, without the trace of the replica that Ray Serve puts before it, and without its
    class where that is one of this project."""
    lines = message.strip().splitlines()
    return re.sub(r"^alphafuse\.errors\.\w+: ", "", lines[-1]) if lines else "Ray Serve does not say why"


def _require_free(settings: ServeConfig) -> None:
    """Check that the service can listen; Ray Serve would start without it.

    Raises:
        ResourceError: it cannot.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise ResourceError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
                "Correct serve.host, or take another serve.port"
            ) from error
