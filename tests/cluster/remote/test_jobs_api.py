"""Nodes of a cluster as the Jobs API tells of them, with made-up answers in the form of Ray's."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from alphafuse.errors import ClusterError
from cluster.remote import jobs_api
from cluster.remote.jobs_api import Connection

HERE = socket.gethostname()


def _node(number: int, state: str = "ALIVE") -> dict[str, Any]:
    return {"node_id": f"n{number}", "state": state, "resources_total": {"CPU": float(number)}}


def _named(number: int, machine: str) -> dict[str, Any]:
    return {"hostname": machine, "raylet": {"nodeId": f"n{number}"}}


def _cluster(monkeypatch: pytest.MonkeyPatch, *summaries: list[dict[str, Any]]) -> Connection:
    """A cluster of two nodes, and a dead one, that gives one summary after the other, and the last one for ever."""
    left = list(summaries)

    def answer(_: Connection, path: str) -> dict[str, Any]:
        if path.startswith("/api/v0/nodes"):
            return {"result": {"result": [_node(1), _node(2), _node(3, "DEAD")]}}
        return {"summary": left.pop(0) if len(left) > 1 else left[0]}

    monkeypatch.setattr(Connection, "_get", answer)
    monkeypatch.setattr(jobs_api, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(jobs_api, "_NAME_SECONDS", 0.05)
    return Connection("http://127.0.0.1:8265", client=None, token=None)  # type: ignore[arg-type]


def test_nodes_that_have_just_started_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [_named(1, HERE), _named(2, HERE), _named(3, "elsewhere")]
    cluster = _cluster(monkeypatch, [], [_named(1, HERE), {"raylet": {"nodeId": "n2"}}], both)
    assert cluster.is_this_machine()
    assert not _cluster(monkeypatch, [], [_named(1, HERE), _named(2, "elsewhere")]).is_this_machine()
    assert cluster.machines() == [{"CPU": 1.0}, {"CPU": 2.0}]


def test_a_node_that_never_tells_its_machine_is_no_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match="does not tell on which machines its nodes run"):
        _cluster(monkeypatch, [_named(1, HERE)]).is_this_machine()
