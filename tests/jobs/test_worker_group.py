"""What is read out of the exceptions that Ray Train raises: they come in many wrappings."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from alphafuse.errors import DataError, ResourceError
from jobs.worker_group import _reason_to_restart


def _health_check(cause: Exception) -> WorkerHealthCheckFailedError:
    return WorkerHealthCheckFailedError("A worker health check failed.", cause)


def test_a_death_that_the_health_check_met_is_a_death() -> None:
    failure = WorkerGroupError("failed", {0: _health_check(ActorDiedError())})
    assert "died unexpectedly" in _reason_to_restart("train", failure, last=False)
    with pytest.raises(ResourceError, match=r"died again and again, .* died unexpectedly .* out of memory"):
        _reason_to_restart("train", failure, last=True)


def test_the_death_of_a_worker_says_more_than_the_broken_connection_of_its_peer() -> None:
    broken = RuntimeError("Connection closed by peer")
    failure = WorkerGroupError("failed", {0: broken, 1: _health_check(ActorDiedError())})
    assert "died unexpectedly" in _reason_to_restart("train", failure, last=False)
    with pytest.raises(ResourceError):
        _reason_to_restart("train", failure, last=True)


def test_a_fault_of_the_code_comes_through_as_it_is_after_the_last_restart() -> None:
    failure = WorkerGroupError("failed", {0: RuntimeError("no such kernel")})
    assert _reason_to_restart("train", failure, last=False) == "no such kernel"
    with pytest.raises(WorkerGroupError):
        _reason_to_restart("train", failure, last=True)


def test_what_no_restart_cures_is_raised_at_once() -> None:
    wrapped = RayTaskError("f", "traceback", DataError("column item is missing"))
    failure = WorkerGroupError("failed", {0: _health_check(ActorDiedError()), 1: wrapped})
    with pytest.raises(DataError, match="column item is missing"):
        _reason_to_restart("train", failure, last=False)
