"""The five answers at the top of a run's page: is it alive, how far, is it learning, what is slow, are workers well?"""

from __future__ import annotations

import numpy as np
from dash import html

from monitoring.dashboard.components import TONES, Part, ago, aria, badge, bar
from monitoring.dashboard.final_result import final_result
from monitoring.presentation.formats import duration, number, rough
from monitoring.run_log.reader import Run
from monitoring.run_log.run_state import RunState


def five_answers(run: Run, state: RunState, now: float) -> Part:
    """A card for each question, with its answer."""
    answers = [
        ("Alive?", *_alive(run, state, now)),
        ("How far?", *_how_far(state)),
        ("Learning?", *_learning(run)),
        ("What is slow?", *_slow(run, state)),
        ("Workers well?", *_workers_well(run, state)),
    ]
    cards = [
        html.Div(
            [html.H2(question), html.B(answer), html.P(more)], className=f"card answer {tone}", id=f"answer-{place}"
        )
        for place, (question, answer, more, tone) in enumerate(answers)
    ]
    return html.Section(cards, className="glance", **aria(label="At a glance"))


def _alive(run: Run, state: RunState, now: float) -> tuple[Part, Part, str]:
    tone = TONES.get(state.status, "calm")
    news = "nothing reported yet" if state.latest is None else f"last report {ago(state.latest, now)}"
    more = {
        "quiet": f"it is alive, but has reported nothing for {rough(now - (state.latest or now))}",
        "lost": f"no sign of life{'' if run.beat is None else f' for {rough(now - run.beat.time)}'}: the process died "
        "or cannot write to its workspace; the same command continues it",
        "stopped": f"interrupted; the same command continues it; {news}",
        "failed": f"{state.stage.name if state.stage else 'it'} failed {ago(state.latest or now, now)}",
    }
    return badge(state.status), more.get(state.status, news), tone


def _how_far(state: RunState) -> tuple[Part, Part, str]:
    stage = state.stage
    done = sum(each.status in ("finished", "left out") for each in state.stages)
    if stage is None or stage.status != "running":
        return f"{done} of {len(state.stages)} stages", "", ""
    share = "" if stage.share is None else f" {stage.share:.0%}"
    left = (
        []
        if stage.remaining is None
        else [f"{'at most' if stage.name == 'train' else 'about'} {rough(stage.remaining)} left in this stage"]
    )
    return f"{stage.name}{share}", [bar(stage.share, f"progress of {stage.name}"), html.Span(left)], ""


def _learning(run: Run) -> tuple[Part, Part, str]:
    curve, best = run.training.by_epoch.get(run.monitor), run.training.best(run.monitor)
    if curve is None or best is None:
        loss = run.training.by_step.get("loss")
        if loss is None or not len(loss.y):
            return "–", "no training yet", ""
        return f"loss {loss.y[-1]:.3f}", f"from {loss.y[0]:.3f}; no validation yet", ""
    epoch, value = best
    stale, patience = int(np.sum(curve.x > epoch)), run.settings.get("train", {}).get("patience")
    more = f"best of {len(curve.x)} validations: epoch {epoch}"
    if stale:
        more += f"; {stale} since without improvement" + (f", {patience} end it" if patience else "")
    else:
        more += ", the latest"
    test = final_result(run)
    if test is not None:
        more += f"; test {test.value:.4f}, seen items {test.seen}"
    return [html.Small(f"{run.monitor.upper()} "), f"{value:.4f}"], more, ""


def _slow(run: Run, state: RunState) -> tuple[Part, Part, str]:
    slowest, rate = run.training.slowest_span(), run.training.by_step.get("samples_per_second")
    if slowest is not None and state.stage is not None and state.stage.name == "train":
        speed = "" if rate is None or not len(rate.y) else f"; {number(round(float(rate.y[-1])))} samples/s"
        return slowest[0], f"{slowest[1]:.0%} of a step{speed}", ""
    timed = [stage for stage in state.stages if stage.seconds is not None]
    if not timed:
        return "–", "nothing measured yet", ""
    longest = max(timed, key=lambda stage: stage.seconds or 0.0)
    total = sum(stage.seconds or 0.0 for stage in timed)
    return longest.name, f"{duration(longest.seconds or 0.0)} of {duration(total)} in all stages", ""


def _workers_well(run: Run, state: RunState) -> tuple[Part, Part, str]:
    workers, restarts = run.training.workers, run.training.restarts
    sick = [worker for worker in workers if worker.complaint]
    again = "" if not restarts else f"started again {restarts} time{'s' if restarts > 1 else ''}"
    if sick and (state.stage is None or state.stage.name == "train"):
        said = "; ".join(f"rank {worker.rank} {worker.complaint}" for worker in sick[:3])
        return f"{len(sick)} of {len(workers)} sick", "; ".join(filter(None, [said, again])), "warm"
    if not workers:
        return "–", again or "no worker has reported", "warm" if again else ""
    return f"{len(workers)} of {len(workers)}", again or "none slow, none silent", "warm" if again else ""
