"""Connects a job to Ray: an existing cluster, or one embedded in this process."""

from __future__ import annotations

import logging
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from alphafuse.config import RayConfig
from alphafuse.errors import ResourceError
from jobs.execution.embedded_cluster import embedded_cluster
from jobs.execution.placement import growing

PATH_TOO_LONG = "AF_UNIX path length cannot exceed"
"""Text by which Ray's error for a folder whose sockets have too long a path is known."""
TIMED_OUT = "timed out during startup"
"""Text by which Ray's error for a machine that is too slow is known; it has no class of its own."""


@contextmanager
def connected(config: RayConfig) -> Iterator[None]:
    """Connect to Ray for the time of the block. A connection that exists already is used and kept.

    Raises:
        ResourceError: the cluster at `config.address` does not answer, this machine is too busy to start one, or the
            path of its folder for temporary files is too long.
    """
    if ray.is_initialized():
        with growing(config.node_groups):
            yield
        return
    if config.address is None:
        with embedded_cluster() as settings, _started(config, num_cpus=config.num_cpus, **settings):
            yield
    else:
        with _started(config, include_dashboard=None):
            yield


@contextmanager
def _started(config: RayConfig, include_dashboard: bool | None = False, **settings: Any) -> Iterator[None]:
    try:
        with _sigterm_kept():
            ray.init(
                address=config.address or "local",  # None would take any cluster that was started on this machine
                include_dashboard=include_dashboard,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                **settings,
            )
    except (ConnectionError, TimeoutError, AuthenticationError) as error:
        advice = "Is the cluster up, and is its token in ~/.ray/auth_token (or named by RAY_AUTH_TOKEN_PATH)?"
        raise ResourceError(f"ray.address {config.address!r} does not answer: {error}. {advice}") from error
    except Exception as error:
        if PATH_TOO_LONG in str(error):
            raise ResourceError(
                f"Ray keeps its sockets in the folder for temporary files ({tempfile.gettempdir()}), whose path "
                f"is too long for them: set TMPDIR or RAY_TMPDIR to a shorter one, such as /tmp"
            ) from error
        if TIMED_OUT not in str(error):
            raise
        raise ResourceError(
            f"this machine is too busy or too small for Ray to start in time ({error}) Try again when it has less "
            "to do, or give Ray longer: RAY_raylet_start_wait_time_s=300 in the environment waits 300 seconds"
        ) from error
    try:
        with growing(config.node_groups):
            yield
    finally:
        ray.shutdown()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep this program's handler of SIGTERM, which `ray.init` replaces by one that exits."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if callable(handler) and signal.getsignal(signal.SIGTERM) is not handler:
        signal.signal(signal.SIGTERM, handler)
