"""Ray tasks side by side: order, limit, errors, lost workers."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from alphafuse.config.sections.resources import Resources, TaskResources
from alphafuse.errors import DataError
from jobs.execution.placement import task_options
from jobs.execution.tasks import as_finished, in_order, remote_task, result

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("ray_cluster")]


@ray.remote
def sleep(number: int, seconds: float) -> tuple[int, float, float]:
    started = time.time()
    time.sleep(seconds)
    return number, started, time.time()


@ray.remote
def fail(number: int) -> int:
    if number == 2:
        raise DataError("row 2 is bad")
    if number == 5:
        raise ValueError("a bug")
    return number


@ray.remote
def die_once(number: int, marker: Path) -> int:
    if number == 1 and not marker.exists():
        marker.touch()
        os._exit(1)
    return number


def test_results_come_in_the_order_of_the_arguments():
    found = in_order(lambda number: sleep.remote(number, 0.2 if number == 0 else 0), range(6), limit=3)

    assert [number for number, _, _ in found] == list(range(6))


def test_no_more_tasks_than_the_limit_run_at_a_time():
    spans = list(in_order(lambda number: sleep.remote(number, 0.05), range(6), limit=2))

    for _, started, _ in spans:
        assert sum(begin <= started < end for _, begin, end in spans) <= 2


def test_an_error_of_the_user_comes_back_as_itself():
    found = in_order(fail.remote, range(4), limit=2)

    with pytest.raises(DataError) as raised:
        list(found)
    assert type(raised.value) is DataError
    assert str(raised.value) == "row 2 is bad"


def test_a_bug_keeps_rays_traceback():
    with pytest.raises(ValueError, match=r"fail\(\)(.|\n)*a bug"):
        result(fail.remote(5))


def test_a_task_whose_worker_dies_is_run_again(tmp_path):
    found = in_order(lambda number: die_once.remote(number, tmp_path / "died"), range(3), limit=2)

    assert list(found) == [0, 1, 2]
    assert (tmp_path / "died").exists()


def test_results_as_they_come_with_failures_among_them() -> None:
    outcomes = list(as_finished(lambda number: sleep.remote(number, 2.0 if number == 0 else 0.0), range(4), 2))
    assert outcomes[-1][0] == 0
    assert {number: result[0] for number, result in outcomes} == {number: number for number in range(4)}
    spans = sorted((result[1], result[2]) for _, result in outcomes)
    assert all(later[0] >= min(span[1] for span in spans[:place]) for place, later in enumerate(spans) if place >= 2)
    failed = dict(as_finished(fail.remote, range(6), 3))
    assert {number: value for number, value in failed.items() if number not in (2, 5)} == {0: 0, 1: 1, 3: 3, 4: 4}
    assert isinstance(failed[2], DataError)
    assert isinstance(failed[5].cause, ValueError)


@ray.remote
def read_variable(name: str) -> str | None:
    return os.environ.get(name)


def test_variables_of_the_environment_reach_a_task() -> None:
    options = task_options(Resources(environment={"ALPHAFUSE_TEST": "given"}))
    assert result(read_variable.options(**options).remote("ALPHAFUSE_TEST")) == "given"
    assert result(read_variable.remote("ALPHAFUSE_TEST")) is None


def test_a_task_with_a_gpu_has_a_process_of_its_own_that_ends(ray_cluster: Cluster) -> None:
    def process_and_gpus() -> tuple[int, str | None]:  # here, so that the worker need not import this file
        return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")

    machine = ray_cluster.add_node(num_cpus=1, num_gpus=1)
    try:
        visible = remote_task(process_and_gpus, TaskResources(gpus=0.5, cpus=1))
        found = [result(visible()) for _ in range(3)]
        assert [gpus for _, gpus in found] == ["0", "0", "0"]
        assert len({process for process, _ in found}) == 3
        psutil.wait_procs([psutil.Process(each) for each, _ in found if psutil.pid_exists(each)], timeout=20)
        assert not any(psutil.pid_exists(process) for process, _ in found)
    finally:
        ray_cluster.remove_node(machine)
