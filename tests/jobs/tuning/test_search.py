"""Search and early stopping on objectives made by hand, without Ray."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from alphafuse.config.space import SpaceConfig
from alphafuse.tuning.trials import FAILED, FINISHED, INTERRUPTED, STOPPED, Trial, Tuning
from jobs.tuning.search import MOST_FAILURES, Halving, Search
from jobs.tuning.trial_training import END, EPOCH

METRIC = "ndcg@20"
SPACE = SpaceConfig.model_validate(
    {
        "trials": 30,
        "settings": {
            "rate": {"log_uniform": [1e-4, 1.0]},
            "layers": {"integers": [1, 4]},
            "kind": {"choice": ["a", "b"]},
        },
    }
)
SMALL = SpaceConfig.model_validate(
    {"trials": 30, "settings": {"x": {"choice": [1, 2, 3]}, "y": {"choice": [True, False]}}}
)


def _objective(settings: dict[str, Any]) -> float:
    """Best, 1, at rate 0.01 with 3 layers of kind b."""
    rate, layers, kind = settings["rate"], settings["layers"], settings["kind"]
    return 1.0 - 0.2 * abs(math.log10(rate) + 2) - 0.1 * abs(layers - 3) - 0.3 * (kind != "b")


def _search(space: SpaceConfig, tuning: Tuning, begin: Callable[[Trial], str] | None = None, **given: Any) -> Search:
    def begun(trial: Trial) -> str:
        if trial not in tuning.trials:
            tuning.trials.append(trial)
        return ""

    arguments: dict[str, Any] = {"first": None, "deadline": None, "seed": 1, **given}
    return Search(space, tuning, begin=begin or begun, **arguments)


def _try(search: Search, tuning: Tuning, trials: int, objective: Callable[[dict[str, Any]], float]) -> None:
    for number in range(trials):
        found = search.suggest(f"id-{number}")
        if found == Searcher.FINISHED:
            return
        trial = tuning.trial(found["name"])
        trial.note(1, objective(trial.settings))
        trial.state = FINISHED
        search.on_trial_complete(f"id-{number}", {METRIC: trial.best[1], END: FINISHED})  # type: ignore[index]


def test_the_best_is_found_also_over_several_calls() -> None:
    tuning = Tuning(METRIC, {}, {})
    for _ in range(4):  # each call knows the trials of those before from the record alone
        _try(_search(SPACE, tuning), tuning, 15, _objective)
    assert len(tuning.trials) == 60
    assert len({tuple(trial.settings.values()) for trial in tuning.trials}) == 60
    assert tuning.best is not None
    assert tuning.best.settings["kind"] == "b"
    assert _objective(tuning.best.settings) > 0.85
    later = [_objective(trial.settings) for trial in tuning.trials[30:]]
    first = [_objective(trial.settings) for trial in tuning.trials[:10]]
    assert sum(later) / len(later) > sum(first) / len(first)


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_a_space_of_choices_is_tried_once_and_then_over(algorithm: str) -> None:
    tuning = Tuning(METRIC, {}, {})
    space = SMALL.model_copy(update={"search": algorithm})
    search = _search(space, tuning, first={"x": 2, "y": True})
    _try(search, tuning, 20, lambda settings: settings["x"] + settings["y"])
    assert tuning.trials[0].settings == {"x": 2, "y": True}
    assert sorted((trial.settings["x"], trial.settings["y"]) for trial in tuning.trials) == [
        (x, y) for x in (1, 2, 3) for y in (False, True)
    ]
    assert tuning.best is not None
    assert tuning.best.settings == {"x": 3, "y": True}
    assert search.suggest("one more") == Searcher.FINISHED


def test_unfinished_trials_go_on_first_with_what_they_have_reported() -> None:
    trials = [
        Trial("trial-001", {"x": 1, "y": True}, FINISHED, curve=[(1, 0.5)]),
        Trial("trial-002", {"x": 2, "y": True}, INTERRUPTED, curve=[(1, 0.5), (2, 0.6)]),
        Trial("trial-003", {"x": 3, "y": True}, STOPPED, curve=[(1, 0.1)]),
        Trial("trial-004", {"x": 1, "y": False}, FAILED, "no memory"),
    ]
    search = _search(SMALL, Tuning(METRIC, {}, {}, trials=trials), first={"x": 2, "y": False})
    assert search.suggest("a") == {"name": "trial-002", "settings": {"x": 2, "y": True}, "curve": [(1, 0.5), (2, 0.6)]}
    assert search.suggest("b") == {"name": "trial-004", "settings": {"x": 1, "y": False}, "curve": []}
    assert {search.suggest(name)["name"] for name in ("c", "d")} == {"trial-005", "trial-006"}
    assert search.suggest("e") == Searcher.FINISHED


def test_settings_that_are_refused_are_passed_over() -> None:
    tuning = Tuning(METRIC, {}, {})

    def begin(trial: Trial) -> str:
        if trial.settings["x"] == 2:
            return "two is too many"
        tuning.trials.append(trial)
        return ""

    _try(_search(SMALL, tuning, begin), tuning, 20, lambda settings: settings["x"])
    assert sorted(trial.settings["x"] for trial in tuning.trials) == [1, 1, 3, 3]  # type: ignore[type-var]


def test_nothing_begins_after_the_deadline() -> None:
    assert _search(SMALL, Tuning(METRIC, {}, {}), deadline=0.0).suggest("a") == Searcher.FINISHED


def test_a_search_whose_trials_all_fail_is_over() -> None:
    tuning = Tuning(METRIC, {}, {})
    search = _search(SPACE, tuning)
    for number in range(MOST_FAILURES):
        assert search.suggest(f"id-{number}") != Searcher.FINISHED
        tuning.trials[-1].state = FAILED
        search.on_trial_complete(f"id-{number}", {END: FAILED})
    assert search.suggest("one more") == Searcher.FINISHED
    assert _search(SPACE, tuning).suggest("again")["name"] == "trial-001"


def _report(halving: Halving, name: str, *values: float) -> int:
    """Report the best value of one epoch after the other; returns the epoch after which the trial is stopped, or 0."""
    trial: Any = SimpleNamespace(trial_id=name)
    halving.on_trial_add(None, trial)  # type: ignore[arg-type]
    for epoch, value in enumerate(values, start=1):
        if halving.on_trial_result(None, trial, {EPOCH: epoch, METRIC: value}) == TrialScheduler.STOP:
            return epoch
    return 0


def test_trials_that_are_worse_than_others_are_stopped() -> None:
    space = SpaceConfig(trials=1, settings=SPACE.settings, grace_period=2, reduction_factor=2)
    halving = Halving(space, METRIC, 8, [])
    assert _report(halving, "first", 0.1, 0.2, 0.3, 0.5) == 0
    assert _report(halving, "worse from the start", 0.0, 0.1, 0.9) == 2  # not before two epochs
    assert _report(halving, "worse later", 0.4, 0.4, 0.4, 0.4) == 4
    assert _report(halving, "better", *[0.6] * 8) == 0
    assert halving.stopped == {"worse from the start", "worse later"}


def test_a_trial_that_has_trained_all_of_its_epochs_is_not_stopped() -> None:
    space = SpaceConfig(trials=1, settings=SPACE.settings, grace_period=2, reduction_factor=2)
    halving = Halving(space, METRIC, 4, [])
    assert _report(halving, "first", 0.1, 0.2, 0.3, 0.5) == 0
    assert _report(halving, "worse in the end", 0.4, 0.4, 0.4, 0.4) == 0
    assert halving.stopped == set()


def test_trials_of_earlier_calls_count() -> None:
    space = SpaceConfig(trials=1, settings=SPACE.settings, grace_period=2, reduction_factor=2)
    earlier = [Trial("trial-001", {}, FINISHED, curve=[(1, 0.7), (2, 0.1), (3, 0.2)])]
    halving = Halving(space, METRIC, 8, earlier)
    assert _report(halving, "new", 0.5, 0.6) == 2
    assert halving.stopped == {"new"}
