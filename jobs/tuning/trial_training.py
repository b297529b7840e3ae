"""Trials as Ray Tune sees them: an actor that trains one after the other and reports every validation.

A training itself is the stage `train` of any run, in a workspace of the trial's own, with its ranks, restarts and
checkpoints. The actor takes no CPU; the ranks that the stage starts take theirs, and are kept for the next trial.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from typing import Any

from ray import tune
from ray.tune.result import DONE
from ray.util.queue import Queue

from alphafuse.config import Config
from alphafuse.config.space import changed_config
from alphafuse.errors import AlphafuseError
from alphafuse.events import EpochMetrics, Event
from alphafuse.stages import TRAIN
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.workspace import Workspace
from alphafuse.tuning.trials import FAILED, FINISHED, INTERRUPTED
from jobs.comparison.shown_events import RunListener
from jobs.execution.worker_group import keeping_ranks
from jobs.pipeline import run_stages

EPOCH, VALUE, END, REASON, TRACEBACK = "epoch", "value", "end", "reason", "traceback"
"""Names in a report: the epoch and its own value of the metric (by its own name, the metric is the best value so far);
in the last report how the trial has ended, and of a failure why, with the traceback of an unexpected error."""


class TrialTraining(tune.Trainable):
    """Trains in a thread of its own; each `step` waits for the next validation.

    What an earlier call has reported of a trial is reported again first, so that search and halving know it.
    """

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], tree: dict[str, Any], folder: Folder, deadline: float | None, events: Queue
    ) -> None:
        """Begin, or continue, the first trial.

        Args:
            config: name, settings and reported validations of the trial.
            tree: plain values of the configuration that is tuned.
            folder: folder of the tuning.
            deadline: time at which a trial is ended, in seconds since the epoch; None: none.
            events: gets the events for the console.
        """
        self._tree, self._folder, self._deadline, self._events = tree, folder, deadline, events
        self._best: dict[str, Any] = {}
        self._waiting = queue.SimpleQueue[_Training | None]()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._train_all, daemon=True)
        self._thread.start()
        self._training: _Training = self._begin(config)

    def step(self) -> dict[str, Any]:
        """Return the next validation, or how the trial has ended."""
        left = None if self._deadline is None else max(0.0, self._deadline - time.time())
        try:
            news = self._training.news.get(timeout=left)
        except queue.Empty:
            news = {END: INTERRUPTED}
        if END in news:
            return {**self._best, **news, DONE: True}
        best = max(news[VALUE], self._best.get(self._metric, news[VALUE]))
        self._best = {**news, self._metric: best}
        return self._best

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next trial."""
        self._end_training()
        self._training = self._begin(new_config)
        return True

    def cleanup(self) -> None:
        self._end_training()
        self._waiting.put(None)
        self._thread.join()

    def _begin(self, config: dict[str, Any]) -> _Training:
        configuration = changed_config(self._tree, config["settings"], (self._folder / config["name"]).uri)
        self._metric = configuration.train.monitor
        self._best = {}
        training = _Training(configuration, config["name"], self._events)
        for epoch, value in config["curve"]:
            training.report(epoch, value)
        self._end.clear()
        self._waiting.put(training)
        return training

    def _end_training(self) -> None:
        """End the training if it goes on; its checkpoints stay."""
        self._end.set()
        self._training.over.wait()

    def _train_all(self) -> None:
        with keeping_ranks(self._end):
            while (training := self._waiting.get()) is not None:
                training.run()


class _Training:
    """The training of one trial.

    Attributes:
        news: validations, and how the training has ended.
        over: whether it has ended.
    """

    def __init__(self, config: Config, name: str, events: Queue) -> None:
        self.news = queue.SimpleQueue[dict[str, Any]]()
        self.over = threading.Event()
        self._config = config
        self._show = RunListener(name, events.put)
        self._reported: set[int] = set()

    def report(self, epoch: int, value: float) -> None:
        """Report a validation, unless it has been reported before."""
        if epoch not in self._reported:
            self._reported.add(epoch)
            self.news.put({EPOCH: epoch, VALUE: value})

    def run(self) -> None:
        """Train to the end."""
        workspace, metric = Workspace(self._config.workspace), self._config.train.monitor
        try:
            run_stages(self._config, workspace, [TRAIN], self._listen)
            # Of an epoch after which a process was killed, the event may be lost, and never the history.
            for entry in workspace.artifact("model").require().details["history"]:
                if entry["validation"] is not None:
                    self.report(entry["epoch"], entry["validation"][metric])
            self.news.put({END: FINISHED})
        except AlphafuseError as error:
            self.news.put({END: FAILED, REASON: str(error)})
        except BaseException as error:  # an unexpected one, or the end that somebody else wanted
            reason = f"{type(error).__name__}: {error}"
            self.news.put({END: FAILED, REASON: reason, TRACEBACK: traceback.format_exc()})
        finally:
            self.over.set()

    def _listen(self, event: Event) -> None:
        self._show(event)
        metric = self._config.train.monitor
        if isinstance(event, EpochMetrics) and metric in event.numbers:
            self.report(event.epoch, event.numbers[metric])
