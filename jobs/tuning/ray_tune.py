"""Ray Tune at work on the trials of a tuning: what it is started with, and how its decisions reach record and console.

Ray Tune's own files are thrown away: they are pickles, and behind what the trials have done. The record `trials.json`
and the trials' workspaces are all that a later call needs.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray import tune
from ray.air.constants import TIME_THIS_ITER_S
from ray.util.queue import Queue

from alphafuse.config import Config
from alphafuse.config.space import SearchSpace
from alphafuse.errors import ConfigError
from alphafuse.events import Listener, StageFailed, StageFinished, StageStarted, StageWarning, ignore
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.workspace import Workspace
from alphafuse.tuning.best_config import write_best
from alphafuse.tuning.trials import ENDED, FAILED, INTERRUPTED, RUNNING, STOPPED, State, Trial, Tuning
from jobs.comparison.compare import side_by_side
from jobs.comparison.shared_stages import borrow, shared_stages
from jobs.comparison.shown_events import InOrder
from jobs.execution.embedded_cluster import MEETING_VARIABLE
from jobs.execution.reporting.event_relay import EventRelay, event_queue
from jobs.execution.variables import variables
from jobs.tuning.search import MOST_FAILURES, Halving, Search
from jobs.tuning.trial_training import END, EPOCH, REASON, TRACEBACK, VALUE, TrialTraining

RAY_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files of its own
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends this command as it ends others
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial may end before its first validation
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of a configuration start from the folder of the command
}
"""Environment variables that Ray Tune reads while it runs."""


class RayTune(tune.Callback):
    """Context of one run of Ray Tune, whose callbacks keep the record and show the trials.

    Args:
        seconds: time that the trials may take; infinity: no limit.
        trials: number of trials to carry out, unfinished ones included; -1: no limit.
        broken: reasons why shared stages have failed, by their folders.
    """

    def __init__(
        self,
        space: SearchSpace,
        tuning: Tuning,
        folder: Folder,
        listen: Listener,
        broken: Mapping[str, str],
        seconds: float,
        trials: int,
    ) -> None:
        self._space = space
        self._tuning = tuning
        self._folder = folder
        self._listen = InOrder(listen)
        self._put: Listener = ignore
        self._broken = broken
        self._deadline = None if seconds == math.inf else time.time() + seconds
        self._trials = trials
        self._before = tuning.seconds
        self._started = time.time()
        ended = [trial for trial in tuning.trials if trial.state in ENDED]
        self._halving = Halving(space.space, tuning.metric, _epochs(space.base), ended)

    def __enter__(self) -> RayTune:
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
        first, seed = self._space.first_settings(), self._space.base.seed
        search = Search(self._space.space, self._tuning, first, self._begin, self._deadline, seed)
        config = tune.TuneConfig(
            search_alg=search,
            scheduler=self._halving,
            num_samples=self._trials,
            max_concurrent_trials=side_by_side([self._space.base], self._space.space.parallel),
            reuse_actors=True,
            trial_dirname_creator=_name,
            trial_name_creator=_name,
        )
        with (
            variables(RAY_TUNE),
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
            self._put = events.put
            tune.Tuner(self._trainable(events), tune_config=config, run_config=files).fit()
        if search.failures >= MOST_FAILURES:
            message = f"the search has ended, since {search.failures} trials in a row have failed"
            self._listen(StageWarning("tune", message))

    def _trainable(self, events: Queue) -> Any:
        # On this machine: whoever watches the tuning looks here for the lists of its trials' processes.
        here = {f"node:{ray.util.get_node_ip_address()}": 0.001}
        training = tune.with_parameters(
            TrialTraining,
            tree=dict(self._space.tree),
            folder=self._folder,
            deadline=self._deadline,
            events=events,
        )
        return tune.with_resources(training, tune.PlacementGroupFactory([{"CPU": 0, **here}]))

    def _begin(self, trial: Trial) -> str:
        """Note that a trial begins, and let it read what it shares; returns why it cannot begin, or nothing."""
        try:
            config = self._space.configuration(trial.settings, (self._folder / trial.name).uri)
        except ConfigError as error:
            return str(error)
        if failed := broken_stage(config, self._broken):
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
        self._put(StageStarted(_name(trial)))

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

    def _end(self, trial: Trial, state: State, reason: str = "") -> None:
        trial.state, trial.reason = state, reason
        self._write()
        if self._tuning.best is trial:
            write_best(self._space, self._tuning, self._folder)
        if state == FAILED:
            self._put(StageFailed(trial.name, reason))
        else:
            best = {} if trial.best is None else {self._tuning.metric: trial.best[1]}
            self._put(StageFinished(trial.name, {**best, "epochs": trial.epochs, "state": state}))

    def _delete_stopped(self) -> None:
        """Delete the checkpoints of trials that were stopped: nobody goes on with them."""
        for trial in self._tuning.trials:
            if trial.state == STOPPED:
                Workspace((self._folder / trial.name).uri).checkpoints.delete()

    def _write(self) -> None:
        self._tuning.seconds = self._before + time.time() - self._started
        self._tuning.write(self._folder)


def broken_stage(config: Config, broken: Mapping[str, str]) -> str:
    """The reason why a stage has failed that a trial shares; empty where none has.

    Args:
        broken: reasons by the folders of the stages.
    """
    return next((broken[each.folder] for each in shared_stages(config) if each.folder in broken), "")


def _name(trial: Any) -> str:
    name: str = trial.config["name"]
    return name


def _epochs(config: Config) -> int:
    """Most epochs of a training, of all its phases."""
    finish = config.train.finish
    return config.train.max_epochs + (0 if finish is None else finish.max_epochs)
