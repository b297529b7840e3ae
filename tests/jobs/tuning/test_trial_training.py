"""The actor that trains trials, without Ray: the stage is replaced by one that reports what the test says."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.workspaces.tiny_workspace import tiny_config

from alphafuse.config import Config
from alphafuse.errors import DataError
from alphafuse.events import EpochMetrics, Event, Listener, StageWarning
from alphafuse.stages import Stage
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.workspace import Workspace
from alphafuse.tuning.trials import FAILED, FINISHED, INTERRUPTED
from jobs.tuning import trial_training
from jobs.tuning.trial_training import END, EPOCH, REASON, TRACEBACK, VALUE, TrialTraining

METRIC = "ndcg@20"
Stages = Callable[[Config, Workspace, list[Stage], Listener], None]


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TrialTraining]]:
    """Begins a trial whose stages are the given function, which may wait for the event of `keeping_ranks`."""
    trials: list[TrialTraining] = []

    def begun(stages: Stages, deadline: float | None = None, **config: Any) -> TrialTraining:
        monkeypatch.setattr(trial_training, "run_stages", stages)
        trial = TrialTraining.__new__(TrialTraining)
        events: Any = queue.SimpleQueue[Event]()
        tree = tiny_config(tmp_path).model_dump(mode="json")
        trial.setup({**_trial("trial-001"), **config}, tree, Folder(str(tmp_path)), deadline, events)
        trials.append(trial)
        return trial

    yield begun
    for trial in trials:
        trial.cleanup()


@pytest.fixture
def end(monkeypatch: pytest.MonkeyPatch) -> list[threading.Event]:
    """The event that ends the work of ranks, once there is one."""
    ends: list[threading.Event] = []

    @contextmanager
    def keeping_ranks(event: threading.Event) -> Iterator[None]:
        ends.append(event)
        yield

    monkeypatch.setattr(trial_training, "keeping_ranks", keeping_ranks)
    return ends


def _trial(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "settings": settings, "curve": []}


def _epoch(number: int, value: float) -> EpochMetrics:
    return EpochMetrics("train", split="validation", epoch=number, loss=1.0, numbers={METRIC: value, "hr@5": 9.0})


def test_validations_are_reported_with_the_best_so_far(begin: Callable[..., TrialTraining]) -> None:
    def stages(config: Config, workspace: Workspace, stages: list[Stage], listen: Listener) -> None:
        assert [stage.name for stage in stages] == ["train"]
        assert workspace.folder.uri.endswith("/trial-001")
        assert config.train.batch_size == 3
        listen(StageWarning("train", "beware"))
        for number, value in ((1, 0.1), (2, 0.3)):
            listen(_epoch(number, value))
        # The event of the third epoch was lost.
        history = [{"epoch": n, "validation": None if n == 4 else {METRIC: n / 10}} for n in (1, 2, 3, 4)]
        workspace.artifact("model").commit({}, {"history": history})

    trial = begin(stages, settings={"train.batch_size": 3})
    reports = [trial.step() for _ in range(4)]
    assert [(report[EPOCH], report[VALUE], report[METRIC]) for report in reports[:3]] == [
        (1, 0.1, 0.1), (2, 0.3, 0.3), (3, 0.3, 0.3)
    ]  # fmt: skip
    assert reports[3][END] == FINISHED
    assert reports[3]["done"]


def test_what_was_reported_before_is_reported_again_and_once(begin: Callable[..., TrialTraining]) -> None:
    def stages(config: Config, workspace: Workspace, stages: list[Stage], listen: Listener) -> None:
        listen(_epoch(2, 0.5))  # after a checkpoint of the first epoch, the second one is trained again
        listen(_epoch(3, 0.4))
        workspace.artifact("model").commit({}, {"history": []})

    trial = begin(stages, curve=[(1, 0.6), (2, 0.5)])
    reports = [trial.step() for _ in range(4)]
    assert [report[EPOCH] for report in reports[:3]] == [1, 2, 3]
    assert [report[METRIC] for report in reports[:3]] == [0.6, 0.6, 0.6]
    assert reports[3][END] == FINISHED


@pytest.mark.parametrize(("error", "reason"), [(DataError("no users"), "no users"), (KeyError("x"), "KeyError: 'x'")])
def test_a_failure_is_the_end_of_the_trial(begin: Callable[..., TrialTraining], error: Exception, reason: str) -> None:
    def stages(*_: Any) -> None:
        raise error

    report = begin(stages).step()
    assert (report[END], report[REASON]) == (FAILED, reason)
    assert (TRACEBACK in report) == (not isinstance(error, DataError))


def test_the_time_ends_a_trial_between_its_validations(
    begin: Callable[..., TrialTraining], end: list[threading.Event]
) -> None:
    def stages(config: Config, workspace: Workspace, stages: list[Stage], listen: Listener) -> None:
        listen(_epoch(1, 0.1))
        end[0].wait(60)
        raise KeyboardInterrupt

    trial = begin(stages, deadline=time.time() + 0.3)
    assert trial.step()[EPOCH] == 1
    report = trial.step()
    assert (report[END], report[METRIC], report["done"]) == (INTERRUPTED, 0.1, True)
    trial.cleanup()
    assert end[0].is_set()


def test_the_next_trial_ends_one_that_goes_on(begin: Callable[..., TrialTraining], end: list[threading.Event]) -> None:
    trained = []

    def stages(config: Config, workspace: Workspace, stages: list[Stage], listen: Listener) -> None:
        trained.append(workspace.name)
        listen(_epoch(1, 0.1))
        if workspace.name == "trial-001":
            assert end[0].wait(60)
            raise KeyboardInterrupt
        workspace.artifact("model").commit({}, {"history": []})

    trial = begin(stages)
    assert trial.step()[EPOCH] == 1
    assert trial.reset_config(_trial("trial-002"))
    assert [trial.step().get(END) for _ in range(2)] == [None, FINISHED]
    assert trained == ["trial-001", "trial-002"]
