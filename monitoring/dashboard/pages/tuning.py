"""The trials of every tuning, the best one first: settings, validation, and how each has ended."""

from __future__ import annotations

from collections.abc import Sequence

from dash import html

from alphafuse.tuning.trials import FAILED, FINISHED, INTERRUPTED, RUNNING, STOPPED, Trial, Tuning
from monitoring.dashboard.components import Part, link_to, listing_page, section, soft, spark, table, toned_badge
from monitoring.dashboard.run_poller import FoundTuning
from monitoring.presentation.formats import duration, number
from monitoring.run_log.reader import Run

TONES = {RUNNING: "good", FINISHED: "calm", STOPPED: "calm", INTERRUPTED: "warm", FAILED: "bad"}


def skeleton() -> Part:
    """The frame of the page."""
    return listing_page("tuning", "Tuning")


def listing(tunings: Sequence[FoundTuning], runs: Sequence[Run]) -> Part:
    """A section for each tuning.

    Args:
        runs: all runs, those of the trials among them, which the trials are links to.
    """
    if not tunings:
        return soft("There is no tuning here: `alphafuse tune CONFIG SPACE` makes one.")
    by_uri = {run.uri: run for run in runs}
    return [_section(order, found, by_uri) for order, found in enumerate(tunings)]


def _section(order: int, found: FoundTuning, runs: dict[str, Run]) -> Part:
    tuning = found.tuning
    keys = list(dict.fromkeys(key for trial in tuning.trials for key in trial.settings))
    rows = [
        [
            link_to(runs[uri]) if (uri := f"{found.uri}/{trial.name}") in runs else trial.name,
            _state(trial, found.lives),
            html.B(_value(trial)) if trial is tuning.best else _value(trial),
            "–" if trial.best is None else f"{trial.best[0]} of {trial.epochs}",
            _curve(trial, tuning.metric),
            duration(trial.seconds),
            *(number(trial.settings.get(key, "–")) for key in keys),
            trial.reason,
        ]
        for trial in tuning.ranked()
    ]
    head = ["trial", "state", f"validation {tuning.metric.upper()}", "in epoch", "curve", "time", *keys, ""]
    failed = [place for place, trial in enumerate(tuning.ranked()) if trial.state == FAILED]
    shown = table(head, rows, f"Trials of {found.key}", marked=failed, texts=(1, len(head) - 1))
    return section(found.key, f"tuning-{order}", soft(_progress(tuning)), shown)


def _state(trial: Trial, lives: bool) -> Part:
    """The state of a trial; none trains whose tuning is dead."""
    state = INTERRUPTED if trial.state == RUNNING and not lives else trial.state
    return toned_badge(state, TONES[state])


def _value(trial: Trial) -> str:
    return "–" if trial.best is None else f"{trial.best[1]:.4f}"


def _curve(trial: Trial, metric: str) -> Part:
    values = [value for _, value in trial.curve]
    return spark(values, f"{metric} over {len(values)} validations") if len(values) > 1 else "–"


def _progress(tuning: Tuning) -> str:
    """How much of the budget is used up."""
    trials, minutes = tuning.budget.get("trials"), tuning.budget.get("minutes")
    ended = sum(trial.state not in (RUNNING, INTERRUPTED) for trial in tuning.trials)
    parts = [f"{ended}" + ("" if trials is None else f" of {trials:.0f}") + " trials have ended"]
    parts.append(duration(tuning.seconds) + ("" if minutes is None else f" of {duration(60 * minutes)}"))
    return ", ".join(parts) + ". Trials are compared by the best validation so far; no test target is ranked."
