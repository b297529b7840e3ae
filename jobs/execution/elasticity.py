"""Elastic groups of ranks: all that were asked for, or as many as the machines that are left have places for.

Ray Train starts a group again with more ranks when there is room. Its view of the cluster is some seconds behind the
death of a machine, so this module waits until every machine has answered, and for lost machines to be replaced.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray import PlacementGroupID
from ray.train import ScalingConfig
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from alphafuse.config.sections.resources import RankResources, Resources
from alphafuse.events import Listener, StageWarning
from jobs.execution.placement import on_pool, require_places, room
from jobs.execution.ray_internals import is_in_task

RESIZE_SECONDS = 60.0
"""Seconds after which a group with fewer ranks than asked for looks for room: growing costs its work since the last
checkpoint."""
REPLACEMENT_SECONDS = 600.0
"""Seconds that lost machines may take to be replaced, once fewer are left than are needed."""
ANSWER_SECONDS = 120.0
"""Seconds that a machine may take to answer, or to be declared dead."""


def scaling(resources: RankResources, resumes: bool) -> ScalingConfig:
    """The ranks that Ray Train is asked for.

    Args:
        resumes: whether a running group may be stopped for a larger one, since its work is kept.
    """
    per_worker = {"CPU": resources.cpus, **on_pool(resources.pool)}
    if resources.gpus:
        per_worker["GPU"] = resources.gpus
    fewest, most = resources.fewest_workers, resources.workers
    return ScalingConfig(  # type: ignore[call-arg]  # mypy sees the older of Ray Train's two interfaces
        num_workers=(fewest, most) if fewest < most else most,  # type: ignore[arg-type]
        use_gpu=resources.gpus > 0,
        resources_per_worker=per_worker,
        elastic_resize_monitor_interval_s=RESIZE_SECONDS if resumes else math.inf,
    )


def await_places(stage: str, key: str, resources: Resources, workers: int, listen: Listener) -> None:
    """Wait until there is room for so many workers: after a death, a lost machine may be replaced.

    Args:
        key: key of the resources in the configuration, for messages.

    Raises:
        ResourceError: there was no room within `REPLACEMENT_SECONDS`.
    """
    _await_answers()
    deadline = time.monotonic() + REPLACEMENT_SECONDS
    places = room(resources, grown=True)
    if places < workers:
        message = f"the machines that are left have room for {places} of at least {workers} workers; waiting for others"
        listen(StageWarning(stage, message))
    while places < workers and time.monotonic() < deadline:
        time.sleep(1)
        places = room(resources, grown=True)
    require_places(key, resources, workers)


def alive_machines() -> set[str]:
    """Ids of the machines that the cluster counts as alive."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


@contextmanager
def released_places() -> Iterator[None]:
    """Give back, when the block ends, the places that this job has taken in it: Ray Train keeps those of a group that
    dies as it starts, or whose controller dies, until the job ends.

    Does nothing in a task of a job (`alphafuse compare`, `alphafuse tune`): others train beside it, and their places
    look the same.
    """
    if is_in_task():
        yield
        return
    before = _places_of_this_job()
    try:
        yield
    finally:
        for name in _places_of_this_job() - before:
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))


def _places_of_this_job() -> set[str]:
    """Ids of the placement groups that this job holds; each ends with the id of its job."""
    job = ray.get_runtime_context().get_job_id()
    groups = placement_group_table().items()
    return {name for name, group in groups if name.endswith(job) and group["state"] != "REMOVED"}


def _await_answers() -> None:
    """Wait until every machine that counts as alive has answered, or is known to be dead."""
    there = [NodeAffinitySchedulingStrategy(node, soft=False) for node in alive_machines()]
    answers = [_answer.options(scheduling_strategy=place).remote() for place in there]
    ray.wait(answers, num_returns=len(answers), timeout=ANSWER_SECONDS)


@ray.remote(num_cpus=0, max_retries=0)
def _answer() -> None:
    """Does nothing; returning proves that the machine answers."""
