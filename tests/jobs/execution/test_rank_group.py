"""Ranks that are kept from task to task, on real Ray Train workers."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.exceptions import RayActorError
from ray.train import TrainingFailedError
from support.processes.waiting import wait_until

from alphafuse.config.sections.resources import RankResources
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import DataError
from alphafuse.events import Event, Listener, Progress, WorkersRestarted
from alphafuse.stages import EVALUATE, RECOMMEND, TRAIN
from jobs.execution.rank_group import RankGroup, RankTask
from jobs.execution.reporting.event_relay import event_queue
from jobs.execution.worker_group import keeping_ranks, run_workers

# Workers cannot import a test module: its functions travel with their code.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("ray_cluster")]

WAIT_SECONDS = 120.0
RANKS = RankResources(workers=2, max_restarts=1)


class _Model:
    """Something large that only the collector of cycles frees; leaves a mark when it goes."""

    def __init__(self, mark: Path) -> None:
        self.itself, self.mark = self, mark

    def __del__(self) -> None:
        self.mark.touch()


def _processes(*, communicator: Communicator, listen: Listener, mark: Path | None = None, **_: Any) -> list[int]:
    """The process of each rank; the last rank is slow to end."""
    if mark is not None:
        _Model(mark)
    listen(Progress("any", communicator.rank, None, "ranks"))
    pids = communicator.gather_objects(os.getpid())
    if communicator.rank > 0:
        time.sleep(1)
        listen(Progress("any", 10, None, "ranks"))
    return pids


def _waits_for_ever(*, log: Path, **_: Any) -> None:
    log.write_text(str(os.getpid()))
    time.sleep(10_000)


def _is_wrong(**_: Any) -> None:
    raise DataError("the cause")


def _actors_beside(pid: int) -> set[str]:
    """Classes of the actors of the Ray to which a process belongs."""
    processes = psutil.Process(psutil.Process(pid).ppid()).children()
    titles = [line[0] for process in processes if (line := process.cmdline())]
    return {title.removeprefix("ray::").partition(".")[0] for title in titles}


def test_ranks_are_kept_until_one_dies_or_fails(tmp_path: Path) -> None:
    events: list[Event] = []
    mark = tmp_path / "freed"
    with keeping_ranks():
        first = run_workers(TRAIN, _processes, RANKS, {"mark": mark}, events.append)
        # All that the ranks said has arrived, the last word of the slower one included.
        assert sorted(event.done for event in events if isinstance(event, Progress)) == [0, 1, 10]
        assert run_workers(EVALUATE, _processes, RANKS, {}, events.append) == first
        assert mark.exists()
        assert len(set(first)) == 2
        actors = _actors_beside(first[0])
        assert "SynchronizationActor" in actors  # of Ray Train, one of its processes that every group needs
        assert actors.isdisjoint({"DatasetManager", "PreemptionWatcher", "PlacementGroupCleaner"})

        os.kill(first[1], signal.SIGKILL)  # between two tasks
        wait_until(lambda: not psutil.pid_exists(first[1]), WAIT_SECONDS)
        second = run_workers(RECOMMEND, _processes, RANKS, {}, events.append)
        assert set(second).isdisjoint(first)
        assert [event.stage for event in events if isinstance(event, WorkersRestarted)] == ["recommend"]

        with pytest.raises(DataError, match="the cause"):
            run_workers(TRAIN, _is_wrong, RANKS, {}, events.append)
        wait_until(lambda: not any(map(psutil.pid_exists, second)), WAIT_SECONDS)
    assert len([event for event in events if isinstance(event, WorkersRestarted)]) == 1


def test_a_task_ends_when_another_thread_wants_it(tmp_path: Path) -> None:
    log, end = tmp_path / "pid", threading.Event()

    def want_it() -> None:
        wait_until(lambda: log.exists() and log.read_text(), WAIT_SECONDS)
        end.set()

    threading.Thread(target=want_it, daemon=True).start()
    with keeping_ranks(end) as ranks, pytest.raises(KeyboardInterrupt):
        ranks.run(RankTask(TRAIN, _waits_for_ever, {"log": log}, None), RankResources(workers=1), resumes=True)
    wait_until(lambda: not psutil.pid_exists(int(log.read_text())), WAIT_SECONDS)


def test_ranks_that_are_given_up_end_in_the_middle_of_their_task(tmp_path: Path) -> None:
    log = tmp_path / "pid"
    with event_queue() as events:
        group = RankGroup(RankResources(workers=1), False, events)
        threading.Thread(
            target=lambda: (wait_until(lambda: log.exists() and log.read_text(), WAIT_SECONDS), group.give_up()),
            daemon=True,
        ).start()
        with pytest.raises((RayActorError, TrainingFailedError)):
            group.run(RankTask(TRAIN, _waits_for_ever, {"log": log}, None), threading.Event())
    wait_until(lambda: not psutil.pid_exists(int(log.read_text())), WAIT_SECONDS)
