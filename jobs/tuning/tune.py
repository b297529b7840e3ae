"""A tuning: trials with settings from a search space, trainings that Ray Tune stops early where others are better.

Only the stages up to training run: nothing here ranks a test target. The record `trials.json` of the folder and the
trials' workspaces are all that a later call needs; Ray Tune's own files are thrown away (they are pickles, and behind
what the trials have done).
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
import yaml
from ray import tune
from ray.air.constants import TIME_THIS_ITER_S
from ray.util.queue import Queue

from alphafuse.config import Config
from alphafuse.config.space import SearchSpace
from alphafuse.errors import ConfigError, WorkspaceError
from alphafuse.events import Listener, StageFailed, StageFinished, StageSkipped, StageStarted, StageWarning
from alphafuse.stages import TRAIN
from alphafuse.storage.folder import Folder
from alphafuse.storage.workspace import Workspace
from alphafuse.tuning.trials import (
    ENDED,
    FAILED,
    INTERRUPTED,
    RUNNING,
    STOPPED,
    Trial,
    Tuning,
    read_tuning,
)
from alphafuse.tuning.tunable import shared_variants, trained_from, tunable
from jobs.comparison.compare import side_by_side
from jobs.comparison.shared_making import make_shared
from jobs.comparison.shared_stages import borrow, shared_stages
from jobs.execution.embedded_cluster import MEETING_VARIABLE
from jobs.execution.event_relay import EventRelay, event_queue
from jobs.execution.placement import require_places, require_shared
from jobs.execution.ray_connection import connected
from jobs.tuning.search import MOST_FAILURES, Halving, Search, unfinished
from jobs.tuning.trial_training import END, EPOCH, REASON, TRACEBACK, VALUE, TrialTraining
from monitoring.run_log.heartbeat import Heartbeat

BEST = "best.yaml"
"""Configuration of the best trial, in the folder of the tuning."""
RAY_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files of its own
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends this command as it ends others
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial may end before its first validation
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of a configuration start from the folder of the command
}
"""Environment variables that Ray Tune reads while it runs."""


def run(space: SearchSpace, folder: Folder, listen: Listener, again: bool = False) -> Tuning:
    """Carry out the trials that the budget still allows, and write `trials.json` and `best.yaml`.

    Both are written again whenever a trial ends, `trials.json` with every validation. A trial that fails stops no
    other; a later call tries it again.

    Args:
        folder: folder of the tuning.
        again: delete the trials of earlier calls and begin anew; what they share stays.

    Raises:
        ConfigError: a setting of the space may not be tuned (see `tunable`).
        OwnershipError: another process tunes in this folder.
        ResourceError: the cluster cannot hold the workers of a trial, or its machines cannot all reach the folder.
        StaleError: the folder has trials of another configuration or space.
        WorkspaceError: no trial can begin, since a stage that they share has failed.
    """

    def say(message: str) -> None:
        listen(StageWarning("tune", message))

    given, space = space.space.settings, tunable(space)
    if idle := [key for key in given if key not in space.space.settings]:
        say(f"left out, since they change nothing that is trained with this configuration: {', '.join(idle)}")

    with Heartbeat(folder, folder.uri, say), connected(space.base.ray):
        require_shared(Workspace(folder.uri))
        require_places(TRAIN.resources, space.base.train.resources)
        tuning = open_record(space, folder, again)
        for trial in tuning.trials:
            if trial.state in ENDED:
                listen(StageSkipped(trial.name))
        if _trials_left(space, tuning) and _seconds_left(space, tuning) > 0:
            variants = shared_variants(space)
            broken = make_shared(variants, folder, listen)
            reasons = [_broken_stage(config, broken) for config in variants]
            if all(reasons):
                raise WorkspaceError(f"no trial can begin, since a stage before training has failed: {reasons[0]}")
            with _RayTune(space, tuning, folder, listen, broken) as ray_tune:
                ray_tune.run()
        _write_best(space, tuning, folder)
        return tuning


def open_record(space: SearchSpace, folder: Folder, again: bool) -> Tuning:
    """The record of earlier calls with the budget of this one, or a new one.

    Args:
        again: delete the trials of earlier calls.

    Raises:
        StaleError: they are trials of another configuration or space.
    """
    made_from = {
        **trained_from(space.base),
        "space": space.space.model_dump(mode="json", exclude={"trials", "minutes", "parallel"}, exclude_none=True),
    }
    budget = space.space.model_dump(mode="json", include={"trials", "minutes"})
    known, new = read_tuning(folder), Tuning(space.base.train.monitor, made_from, budget)
    if known is None:
        return new
    if again:
        new.write(folder)  # first, so that no record names trials that are gone
        for trial in known.trials:
            (folder / trial.name).delete()
        return new
    known.require_same(made_from, folder)
    known.budget = budget
    return known


def _trials_left(space: SearchSpace, tuning: Tuning) -> int:
    """Number of trials to carry out, unfinished ones included; -1: as many as there is time for."""
    if space.space.trials is None:
        return -1
    ended = len(tuning.trials) - len(unfinished(tuning.trials))
    return max(0, space.space.trials - ended)


def _seconds_left(space: SearchSpace, tuning: Tuning) -> float:
    minutes = space.space.minutes
    return math.inf if minutes is None else 60 * minutes - tuning.seconds


def _write_best(space: SearchSpace, tuning: Tuning, folder: Folder) -> None:
    """Write `best.yaml`, a whole configuration; its workspace is that of the trial, whose model it finds there."""
    trial = tuning.best
    if trial is None or trial.best is None:
        return
    epoch, value = trial.best
    config = space.configuration(trial.settings, (folder / trial.name).uri)
    tree = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    lines = [
        f"The best of {len(tuning.trials)} trials of `alphafuse tune`: {trial.name}, {trial.state}.",
        f"Validation {tuning.metric.upper()} {value:.4f} in epoch {epoch} of {trial.epochs}. Tuned settings:",
        *(f"  {key}={yaml.safe_dump(each).splitlines()[0]}" for key, each in trial.settings.items()),
        "`alphafuse run` takes this file: it finds the trained model, or finishes its training, and tests it.",
    ]
    folder.write_bytes(BEST, "".join(f"# {line}\n" for line in lines).encode() + tree.encode())


class _RayTune(tune.Callback):
    """Context of one run of Ray Tune, whose callbacks keep the record and show the trials.

    Args:
        broken: reasons why shared stages have failed, by their folders.
    """

    def __init__(
        self, space: SearchSpace, tuning: Tuning, folder: Folder, listen: Listener, broken: Mapping[str, str]
    ) -> None:
        self._space = space
        self._tuning = tuning
        self._folder = folder
        self._listen = listen
        self._broken = broken
        self._before = tuning.seconds
        self._started = time.time()
        self._halving = Halving(space.space, tuning.metric, _epochs(space.base), _ended(tuning))

    def __enter__(self) -> _RayTune:
        return self

    def __exit__(self, *error: object) -> None:
        """Note that trials which go on when the block ends are ended from outside."""
        for trial in self._tuning.trials:
            if trial.state == RUNNING:
                trial.state = INTERRUPTED
        self._write()
        self._delete_stopped()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles its callbacks for `Tuner.restore`, which nobody calls

    def run(self) -> None:
        """Carry out trials until the budget is used up or the search finds nothing new."""
        left = _seconds_left(self._space, self._tuning)
        deadline = None if left == math.inf else time.time() + left
        first, seed = self._space.first_settings(), self._space.base.seed
        search = Search(self._space.space, self._tuning, first, self._begin, deadline, seed)
        config = tune.TuneConfig(
            search_alg=search,
            scheduler=self._halving,
            num_samples=_trials_left(self._space, self._tuning),
            max_concurrent_trials=side_by_side([self._space.base], self._space.space.parallel),
            reuse_actors=True,
            trial_dirname_creator=_name,
            trial_name_creator=_name,
        )
        with (
            _ray_tune_environment(),
            event_queue() as events,
            EventRelay(self._listen, events),
            # In the folder of an embedded Ray, which is deleted even if this process is killed.
            tempfile.TemporaryDirectory(dir=os.environ.get(MEETING_VARIABLE)) as storage,
        ):
            files = tune.RunConfig(
                name="tune",
                storage_path=storage,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trials have their own
                verbose=0,
                callbacks=[self],
            )
            tune.Tuner(self._trainable(deadline, events), tune_config=config, run_config=files).fit()
        if search.failures >= MOST_FAILURES:
            message = f"the search has ended, since {search.failures} trials in a row have failed"
            self._listen(StageWarning("tune", message))

    def _trainable(self, deadline: float | None, events: Queue) -> Any:
        # On this machine: whoever watches the tuning looks here for the lists of its trials' processes.
        here = {f"node:{ray.util.get_node_ip_address()}": 0.001}
        arguments = {"tree": dict(self._space.tree), "folder": self._folder, "deadline": deadline, "events": events}
        return tune.with_resources(
            tune.with_parameters(TrialTraining, **arguments), tune.PlacementGroupFactory([{"CPU": 0, **here}])
        )

    def _begin(self, trial: Trial) -> str:
        """Note that a trial begins, and let it read what it shares; returns why it cannot begin, or nothing."""
        try:
            config = self._space.configuration(trial.settings, (self._folder / trial.name).uri)
        except ConfigError as error:
            return str(error)
        if failed := _broken_stage(config, self._broken):
            return failed
        if trial not in self._tuning.trials:
            (self._folder / trial.name).delete()  # what an interrupted --redo has left
            self._tuning.trials.append(trial)
        borrow(Workspace(config.workspace), config)
        trial.state, trial.reason = RUNNING, ""
        self._write()
        self._delete_stopped()
        return ""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._listen(StageStarted(_name(trial)))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        known = self._tuning.trial(_name(trial))
        known.seconds += result[TIME_THIS_ITER_S]
        if VALUE in result:
            known.note(result[EPOCH], result[VALUE])
        self._write()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        known, last = self._tuning.trial(_name(trial)), trial.last_result
        if trial.trial_id in self._halving.stopped:
            self._end(known, STOPPED)
        else:
            if TRACEBACK in last:
                print(last[TRACEBACK], file=sys.stderr)
            self._end(known, last[END], last.get(REASON, ""))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(self._tuning.trial(_name(trial)), FAILED, "its process died; the same command continues it")

    def _end(self, trial: Trial, state: str, reason: str = "") -> None:
        trial.state, trial.reason = state, reason
        self._write()
        if self._tuning.best is trial:
            _write_best(self._space, self._tuning, self._folder)
        if state == FAILED:
            self._listen(StageFailed(trial.name, reason))
        else:
            best = {} if trial.best is None else {self._tuning.metric: trial.best[1]}
            self._listen(StageFinished(trial.name, {**best, "epochs": trial.epochs, "state": state}))

    def _delete_stopped(self) -> None:
        """Delete the checkpoints of trials that were stopped: nobody goes on with them."""
        for trial in self._tuning.trials:
            if trial.state == STOPPED:
                Workspace((self._folder / trial.name).uri).checkpoints.delete()

    def _write(self) -> None:
        self._tuning.seconds = self._before + time.time() - self._started
        self._tuning.write(self._folder)


def _broken_stage(config: Config, broken: Mapping[str, str]) -> str:
    """The reason why a stage has failed that a trial shares; empty where none has."""
    return next((broken[each.folder] for each in shared_stages(config) if each.folder in broken), "")


def _name(trial: Any) -> str:
    name: str = trial.config["name"]
    return name


def _ended(tuning: Tuning) -> list[Trial]:
    return [trial for trial in tuning.trials if trial.state in ENDED]


def _epochs(config: Config) -> int:
    """Most epochs of a training, of all its phases."""
    finish = config.train.finish
    return config.train.max_epochs + (0 if finish is None else finish.max_epochs)


@contextmanager
def _ray_tune_environment() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in RAY_TUNE}
    os.environ.update(RAY_TUNE)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
