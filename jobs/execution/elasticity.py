"""How many ranks a stage gets: all that were asked for, or as many as the machines that are left have places for; and
how lost machines are waited for.

Ray Train starts a group again with more ranks when there is room. It asks what the cluster believes, which is some
seconds behind the death of a machine: here that is waited for.
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

from alphafuse.config.resources import RankResources, Resources
from alphafuse.events import Listener, StageWarning
from jobs.execution.placement import on_pool, require_places, room
from jobs.execution.ray_internals import is_in_task

RESIZE_SECONDS = 60.0
"""How often a group with fewer ranks than asked for looks for room: growing costs what it did since its checkpoint."""
REPLACEMENT_SECONDS = 600.0
"""How long lost machines may take to come back, once fewer are left than are needed."""
ANSWER_SECONDS = 120.0
"""How long a machine may take to answer, or to be declared dead."""


def scaling(resources: RankResources, resumes: bool) -> ScalingConfig:
    """What Ray Train is asked for.

    Args:
        resumes: whether a running group may be stopped for a larger one, since what it has done is kept.
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
        key: of the resources in the configuration, for messages.

    Raises:
        ResourceError: it was not, in `REPLACEMENT_SECONDS`.
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
    """Ids of the machines that the cluster believes in."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


@contextmanager
def released_places() -> Iterator[None]:
    """Give back, when the block ends, the places that this job has taken in it: Ray Train keeps those of a group that
    dies as it starts, or whose controller dies, until the job ends.

    Not in a task of a job: there others train beside it (`alphafuse compare`), and their places look the same.
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
    """Ids of the placement groups that it holds; each ends with that of its job."""
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
    """That is enough."""
