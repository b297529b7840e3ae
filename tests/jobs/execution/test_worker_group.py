"""Causes in the exceptions of Ray Train, which are wrapped in many ways."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import pytest
import ray
from ray import PlacementGroupID
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train import ControllerError, WorkerGroupError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from alphafuse.config.sections.resources import RankResources
from alphafuse.errors import DataError, ResourceError
from alphafuse.events import Event, Progress, StageWarning
from alphafuse.stages import TRAIN
from jobs.execution import elasticity, rank_group
from jobs.execution.ray_internals import failed_health_check, startup_timeout
from jobs.execution.worker_group import Ranks, reason_to_restart, run_workers


def test_a_death_that_the_health_check_met_is_a_death() -> None:
    failure = WorkerGroupError("failed", {0: failed_health_check(ActorDiedError())})
    assert "died unexpectedly" in reason_to_restart("train", failure, last=False)
    with pytest.raises(ResourceError, match=r"died again and again, .* died unexpectedly .* out of memory"):
        reason_to_restart("train", failure, last=True)


def test_the_death_of_a_worker_says_more_than_the_broken_connection_of_its_peer() -> None:
    broken = RuntimeError("Connection closed by peer")
    failure = WorkerGroupError("failed", {0: broken, 1: failed_health_check(ActorDiedError())})
    assert "died unexpectedly" in reason_to_restart("train", failure, last=False)
    with pytest.raises(ResourceError):
        reason_to_restart("train", failure, last=True)


def test_a_fault_of_the_code_comes_through_as_it_is_after_the_last_restart() -> None:
    failure = WorkerGroupError("failed", {0: RuntimeError("no such kernel")})
    assert reason_to_restart("train", failure, last=False) == "no such kernel"
    with pytest.raises(WorkerGroupError):
        reason_to_restart("train", failure, last=True)


def test_what_no_restart_cures_is_raised_at_once() -> None:
    wrapped = RayTaskError("f", "traceback", DataError("column item is missing"))
    failure = WorkerGroupError("failed", {0: failed_health_check(ActorDiedError()), 1: wrapped})
    with pytest.raises(DataError, match="column item is missing"):
        reason_to_restart("train", failure, last=False)


@pytest.mark.engine
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("got_to", "attempts"), [([2, 4, 6, None], 4), ([2, 2], 2), ([3, 5, 4], 3)])
def test_only_deaths_without_progress_count(
    monkeypatch: pytest.MonkeyPatch, got_to: list[int | None], attempts: int
) -> None:
    """One restart is allowed. An attempt that begins behind the farthest step so far must get beyond that step."""
    started: list[int] = []

    def attempt(ranks: Ranks, *_: Any) -> str:
        done = got_to[len(started)]
        started.append(len(started))
        if done is None:
            return "finished"
        reported = Progress("train", done, None, "steps")
        ranks.events.put(reported)
        deadline = time.monotonic() + 60
        while received[-1:] != [reported] and time.monotonic() < deadline:
            time.sleep(0.01)
        raise WorkerGroupError("failed", {0: failed_health_check(ActorDiedError())})

    received: list[Event] = []
    monkeypatch.setattr(Ranks, "run", attempt)
    config = RankResources(max_restarts=1)
    if attempts == 4:
        assert run_workers(TRAIN, lambda: None, config, {}, received.append) == "finished"
    else:
        with pytest.raises(ResourceError, match="died again and again"):
            run_workers(TRAIN, lambda: None, config, {}, received.append)
    assert len(started) == attempts


@pytest.mark.parametrize(("workers", "fewest"), [(4, None), (4, 4), (4, 2)])
def test_what_ray_train_is_asked_for(workers: int, fewest: int | None) -> None:
    config = RankResources(workers=workers, min_workers=fewest, cpus=2)
    for resumes, seconds in ((True, elasticity.RESIZE_SECONDS), (False, math.inf)):
        asked = elasticity.scaling(config, resumes)
        assert asked.num_workers == ((2, 4) if fewest == 2 else 4)
        assert asked.resources_per_worker == {"CPU": 2}
        assert asked.elastic_resize_monitor_interval_s == seconds


def test_variables_of_a_rank_are_those_that_the_configuration_gives() -> None:
    given = {"NCCL_SOCKET_IFNAME": "eth1", "OMP_NUM_THREADS": "7"}
    environment = rank_group.worker_environment(RankResources(cpus=3, environment=given))
    assert environment == {**rank_group.TUNING, "DS_ACCELERATOR": "cpu", **given}
    on_gpus = rank_group.worker_environment(RankResources(cpus=3, gpus=1))
    assert on_gpus == {**rank_group.TUNING, "OMP_NUM_THREADS": "3"}


def test_no_more_ranks_can_be_needed_than_there_are() -> None:
    with pytest.raises(ValueError, match=r"min_workers \(3\) must not exceed workers \(2\)"):
        RankResources(workers=2, min_workers=3)


@pytest.mark.engine
@pytest.mark.usefixtures("ray_cluster")
def test_workers_that_find_no_place_yet_have_not_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a cluster grows by itself, or others hold its machines for a while."""
    attempts: list[int] = []

    def attempt(*_: Any) -> str:
        attempts.append(1)
        if len(attempts) < 5:
            raise ControllerError(startup_timeout(2))
        return "finished"

    events: list[Event] = []
    monkeypatch.setattr(Ranks, "run", attempt)
    assert run_workers(TRAIN, lambda: None, RankResources(max_restarts=1), {}, events.append) == "finished"
    assert events == []


@pytest.mark.engine
@pytest.mark.usefixtures("ray_cluster")
def test_a_lost_machine_is_waited_for_and_then_told(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    monkeypatch.setattr(elasticity, "REPLACEMENT_SECONDS", 0.1)
    with pytest.raises(ResourceError, match=r"train\.resources\.workers asks for 50 workers .* room for 4"):
        elasticity.await_places("evaluate", "train.resources", RankResources(), 50, events.append)
    (event,) = events
    message = "the machines that are left have room for 4 of at least 50 workers; waiting for others"
    assert event == StageWarning("evaluate", message, time=event.time)
    rooms = iter([4, 4, 4, 50])
    monkeypatch.setattr(elasticity, "REPLACEMENT_SECONDS", 60.0)
    monkeypatch.setattr(elasticity, "room", lambda *_, **__: next(rooms))
    monkeypatch.setattr(elasticity, "require_places", lambda *_: None)
    elasticity.await_places("evaluate", "train.resources", RankResources(), 50, events.append)
    assert next(rooms, None) is None  # it looked until there was room, and no longer


@pytest.mark.engine
@pytest.mark.usefixtures("ray_cluster")
def test_places_that_an_attempt_has_left_taken_are_given_back() -> None:
    kept = placement_group([{"CPU": 1}])
    with contextlib.suppress(InterruptedError), elasticity.released_places():
        left = placement_group([{"CPU": 1}])
        raise InterruptedError
    states = {name: group["state"] for name, group in placement_group_table().items()}
    assert states[left.id.hex()] == "REMOVED"
    assert states[kept.id.hex()] != "REMOVED"
    remove_placement_group(kept)


@pytest.mark.engine
@pytest.mark.usefixtures("ray_cluster")
def test_places_of_a_run_beside_it_are_left_alone() -> None:
    """The runs of a comparison are tasks of one job: a place that one of them finds taken may belong to another."""

    @ray.remote(num_cpus=0)
    def run_beside() -> str:
        with elasticity.released_places():
            return placement_group([{"CPU": 1}]).id.hex()

    name = ray.get(run_beside.remote())
    assert placement_group_table()[name]["state"] != "REMOVED"
    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))
