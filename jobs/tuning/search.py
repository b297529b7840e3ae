"""The search of a tuning: which settings come next (Optuna, through Ray Tune), and which trials are stopped early
(Ray Tune's ASHA). Both are told of the trials of earlier calls, so that nothing of theirs is kept between calls.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import optuna
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from alphafuse.config.space import Distribution, SpaceConfig, Value
from alphafuse.tuning.trials import ENDED, FAILED, Trial, Tuning
from jobs.tuning.trial_training import END, EPOCH

ATTEMPTS = 100
"""Suggestions in a row that are known or refused, after which the search is over."""

MOST_FAILURES = 5
"""Failed trials in a row, after which the search is over: what ails them will ail the next ones, too."""


class Search(Searcher):
    """Suggests settings for new trials, after those of unfinished ones, and notes each trial in the record.

    Args:
        space: distributions, algorithm and budget.
        tuning: the record, with the trials of earlier calls.
        first: settings of the first trial of all; None: they are drawn as those of the others.
        begin: called with a trial before it begins; returns why its settings are refused, or nothing.
        deadline: time after which no trial begins, in seconds since the epoch; None: none.
        seed: seed of the algorithm.

    Attributes:
        failures: number of the latest trials in a row that have failed in this call.
    """

    def __init__(
        self,
        space: SpaceConfig,
        tuning: Tuning,
        first: Mapping[str, Value] | None,
        begin: Callable[[Trial], str],
        deadline: float | None,
        seed: int,
    ) -> None:
        super().__init__(metric=tuning.metric, mode="max")
        self._tuning = tuning
        self._begin = begin
        self._deadline = deadline
        self._unfinished = {_key(trial.settings): trial for trial in tuning.trials if trial.state not in ENDED}
        self.failures = 0
        self._asked: dict[str, tuple[OptunaSearch, str, dict[str, Value]]] = {}
        self._refused: set[str] = set()
        # Another seed for each number of trials: a call that goes on would draw the same settings again.
        seed += len(tuning.trials)
        points = [trial.settings for trial in self._unfinished.values()]
        if first is not None and not tuning.trials:
            points = [dict(first)]
        random = optuna.samplers.RandomSampler(seed)
        self._random = _optuna_search(space, tuning.metric, random, [])
        sampler = optuna.samplers.TPESampler(seed=seed) if space.search == "tpe" else random
        self._optuna = _optuna_search(space, tuning.metric, sampler, points)
        for trial in tuning.trials:
            if trial.state in ENDED and trial.best is not None:
                self._optuna.add_evaluated_point(trial.settings, trial.best[1])

    def suggest(self, trial_id: str) -> Any:
        """Settings of the next trial, as `{"name": …, "settings": …, "curve": …}`; FINISHED where the time is over, too
        many trials have failed, or nothing new is found."""
        if self.failures >= MOST_FAILURES or (self._deadline is not None and time.time() >= self._deadline):
            return Searcher.FINISHED
        for attempt in range(ATTEMPTS):
            # Where TPE suggests what was tried before, it goes on doing so.
            source, asked = self._random if attempt else self._optuna, f"{trial_id}-{attempt}"
            settings: dict[str, Value] = source.suggest(asked) or {}
            trial = self._new_trial(settings)
            if trial is not None:
                self._asked[trial_id] = source, asked, settings
                return {"name": trial.name, "settings": trial.settings, "curve": list(trial.curve)}
            source.on_trial_complete(asked, error=True)
        return Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        source, asked, settings = self._asked.pop(trial_id)
        failed = error or result is None or result.get(END) == FAILED or self._tuning.metric not in result
        self.failures = self.failures + 1 if error or (result or {}).get(END) == FAILED else 0
        source.on_trial_complete(asked, None if failed else dict(result or {}), failed)
        if source is not self._optuna and not failed and result is not None:
            self._optuna.add_evaluated_point(settings, result[self._tuning.metric])

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles its search for `Tuner.restore`, which nobody calls

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the record keeps everything."""

    def _new_trial(self, settings: dict[str, Value]) -> Trial | None:
        """The trial with these settings, begun; None where there was one, or they are refused."""
        key = _key(settings)
        trial = self._unfinished.pop(key, None)
        if trial is None:
            if key in self._refused or any(_key(known.settings) == key for known in self._tuning.trials):
                return None
            trial = Trial(f"trial-{len(self._tuning.trials) + 1:03d}", settings)
        if self._begin(trial):
            self._refused.add(key)
            return None
        return trial


class Halving(ASHAScheduler):
    """Stops trials that are worse than others after as many epochs, unless they have trained all of theirs.

    Args:
        epochs: epochs of a trial at most.
        earlier: trials of earlier calls that have ended, whose values count.

    Attributes:
        stopped: Ray Tune's ids of the trials that were stopped.
    """

    def __init__(self, space: SpaceConfig, metric: str, epochs: int, earlier: Iterable[Trial]) -> None:
        super().__init__(
            time_attr=EPOCH,
            metric=metric,
            mode="max",
            max_t=max(epochs, space.grace_period),
            grace_period=space.grace_period,
            reduction_factor=space.reduction_factor,
            stop_last_trials=False,  # trials end by themselves after their last epoch, and write their model
        )
        self._epochs = epochs
        self.stopped: set[str] = set()
        for trial in earlier:
            known: Any = SimpleNamespace(trial_id=trial.name)
            self.on_trial_add(None, known)  # type: ignore[arg-type]
            for epoch, value in trial.best_so_far():
                super().on_trial_result(None, known, {EPOCH: epoch, metric: value})  # type: ignore[arg-type]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if decision != TrialScheduler.STOP or result[EPOCH] >= self._epochs:
            return TrialScheduler.CONTINUE
        self.stopped.add(trial.trial_id)
        return decision


def optuna_distribution(distribution: Distribution) -> optuna.distributions.BaseDistribution:
    """The distribution as Optuna takes it."""
    if distribution.choice is not None:
        return optuna.distributions.CategoricalDistribution(distribution.choice)
    (low, high), log = distribution.ends, distribution.kind.startswith("log_")
    if "integers" in distribution.kind:
        return optuna.distributions.IntDistribution(low, high, log=log)
    return optuna.distributions.FloatDistribution(low, high, log=log)


def _optuna_search(
    space: SpaceConfig, metric: str, sampler: optuna.samplers.BaseSampler, points: list[dict[str, Value]]
) -> OptunaSearch:
    distributions = {key: optuna_distribution(each) for key, each in space.settings.items()}
    return OptunaSearch(distributions, metric=metric, mode="max", sampler=sampler, points_to_evaluate=points)


def unfinished(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that a later call goes on with."""
    return [trial for trial in trials if trial.state not in ENDED]


def _key(settings: Mapping[str, Value]) -> str:
    return json.dumps(settings, sort_keys=True)
