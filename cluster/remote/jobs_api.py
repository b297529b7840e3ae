"""Connects to the Jobs API of a cluster: finds its address and token, and translates its errors for the user."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
import tenacity
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from alphafuse.errors import ClusterError
from cluster.launch import local_cluster as local
from jobs.execution.token_file import headers, require_token

_TIMEOUT = 60.0
_NAME_SECONDS = 30.0
"""Longest time in which the nodes of a cluster that has just started tell the names of their machines."""
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Connection:
    """A cluster that answers.

    Attributes:
        url: address of the dashboard and the Jobs API.
        client: client of the Jobs API.
        token: token of the cluster; None if the cluster takes none.
    """

    url: str
    client: JobSubmissionClient
    token: str | None

    def is_this_machine(self) -> bool:
        """True if every node of the cluster runs on this machine.

        This asks the cluster, since a loopback address may be a tunnel to another machine.

        Raises:
            ClusterError: a node does not tell the name of its machine.
        """
        alive = {node["node_id"] for node in self._alive_nodes()}
        # The agent of a node that has just started has yet to tell it.
        name_waits = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda names: not alive <= set(names)),
            stop=tenacity.stop_after_delay(_NAME_SECONDS),
            wait=tenacity.wait_fixed(_LOOK_SECONDS),
            retry_error_callback=lambda _: None,
        )
        names = name_waits(self._machine_names)
        if names is None:
            raise ClusterError(
                f"the cluster at {self.url} does not tell on which machines its nodes run, after {_NAME_SECONDS:.0f} "
                "seconds. Is it still starting? Try again in a minute"
            )
        return bool(alive) and all(names[node] == socket.gethostname() for node in alive)

    def machines(self) -> list[dict[str, float]]:
        """The resources of each node of the cluster, as Ray counts them: CPU, GPU, names of pools, …"""
        return [node["resources_total"] for node in self._alive_nodes()]

    def sends_token_unencrypted(self) -> bool:
        """True if the token leaves this machine unencrypted."""
        parts = urlsplit(self.url)
        return self.token is not None and parts.scheme == "http" and parts.hostname not in _LOOPBACK

    def _alive_nodes(self) -> list[dict[str, Any]]:
        nodes = self._get("/api/v0/nodes?detail=1&limit=10000")["result"]["result"]
        return [node for node in nodes if node["state"] == "ALIVE"]

    def _machine_names(self) -> dict[str, str]:
        """The names of the machines that nodes run on, by the nodes' ids, as far as their agents have told them."""
        nodes = self._get("/nodes?view=summary")["summary"]
        return {
            node["raylet"]["nodeId"]: node["hostname"] for node in nodes if "hostname" in node and node.get("raylet")
        }

    def _get(self, path: str) -> dict[str, Any]:
        with translate_errors(self.url):
            answer = requests.get(f"{self.url}{path}", headers=headers(self.token), timeout=_TIMEOUT)
            answer.raise_for_status()
            data: dict[str, Any] = answer.json()["data"]
        return data


_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def connect(address: str | None) -> Connection:
    """Connect to the cluster at a URL, or to the running local one.

    Raises:
        ClusterError: there is no token, the address is malformed, nothing answers there, or the token is refused.
    """
    url = _local_url() if address is None else _checked(address)
    token = require_token()
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # Ray would use these instead of the given address
    for handler in logging.getLogger("ray").handlers:
        handler.setLevel(logging.WARNING)
    with translate_errors(url):
        return Connection(url, JobSubmissionClient(url, headers=headers(token)), token)


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Context that translates errors of the Jobs API into errors with a remedy.

    Raises:
        ClusterError: the cluster does not answer, or refuses the token or the request.
    """
    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            f"the cluster at {url} refuses the token of this user. It must be the one that the cluster was started "
            "with: see RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"
        ) from error
    except (ConnectionError, requests.RequestException) as error:
        raise ClusterError(
            f"nothing answers at {url} ({type(error).__name__}). Is the cluster up, and the address that of its "
            "dashboard (through `ray dashboard`, `kubectl port-forward` or an SSH tunnel)?"
        ) from error
    except RuntimeError as error:
        raise ClusterError(f"the cluster at {url} says: {error}") from error


def _local_url() -> str:
    cluster = local.running()
    if cluster is None:
        raise ClusterError(
            "which cluster? Give --address http://HEAD:8265 (or set RAY_API_SERVER_ADDRESS), or start one on this "
            "machine with `alphafuse local up`"
        )
    return cluster.dashboard


def _checked(address: str) -> str:
    parts = urlsplit(address)
    if parts.username is not None or parts.password is not None:
        raise ClusterError("an address with a user name or password in it would be seen by others: leave them out")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(f"{address!r} is not the URL of a dashboard, such as http://127.0.0.1:8265")
    return f"{parts.scheme}://{parts.netloc}"
