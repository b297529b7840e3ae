"""Errors of the connection to Ray, translated for the user."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from alphafuse.config import RayConfig
from alphafuse.errors import ResourceError
from jobs.execution import ray_connection as runtime


def _fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let `ray.init` raise this error."""

    def init(**_: Any) -> None:
        raise error

    monkeypatch.setattr(runtime.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(runtime.ray, "init", init)


def test_a_machine_too_busy_for_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is that of Ray 2.60 (`ray/_private/node.py`)."""
    _fail_with(
        monkeypatch,
        Exception(
            "The current node timed out during startup. This could happen because some of the raylet failed to "
            "startup or the GCS has become overloaded."
        ),
    )
    message = r"too busy or too small .* RAY_raylet_start_wait_time_s=300"
    with pytest.raises(ResourceError, match=message), runtime.connected(RayConfig()):
        pass


def test_a_folder_with_too_long_a_path_for_sockets_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(monkeypatch, OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /x"))
    message = r"Ray keeps its sockets in .*too long for them: set TMPDIR or RAY_TMPDIR to a shorter one"
    with pytest.raises(ResourceError, match=message), runtime.connected(RayConfig()):
        pass


def test_a_fault_of_ray_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(monkeypatch, RuntimeError("no such thing"))
    with pytest.raises(RuntimeError, match="no such thing"), runtime.connected(RayConfig()):
        pass


def test_a_cluster_that_was_there_before_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made, watched or ended for a cluster that the driver merely connects to."""
    used: list[dict[str, Any]] = []

    def embedded() -> Any:
        raise AssertionError("no cluster is embedded")

    monkeypatch.setattr(runtime.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(runtime.ray, "init", lambda **settings: used.append(settings))
    monkeypatch.setattr(runtime.ray, "shutdown", lambda: None)
    monkeypatch.setattr(runtime, "embedded_cluster", embedded)
    monkeypatch.setattr(runtime, "growing", lambda groups: nullcontext())
    with runtime.connected(RayConfig(address="10.0.0.1:6379")):
        pass
    (settings,) = used
    assert settings["address"] == "10.0.0.1:6379"
    assert not settings.keys() & {"_temp_dir", "object_spilling_directory", "num_cpus"}
