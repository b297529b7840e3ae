"""The page of one run: five answers at a glance, then its stages, messages, training and workers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from dash import dcc, html

from alphafuse.events import StageFailed, StageWarning, WorkersRestarted
from monitoring.dashboard import charts as figures
from monitoring.dashboard.parts import (
    COMPARE_PATH,
    TONES,
    Part,
    ago,
    aria,
    badge,
    bar,
    clock,
    figure,
    progress_text,
    scroll,
    section,
    soft,
    table,
    table_parts,
)
from monitoring.presentation.formats import duration, number, rough, size
from monitoring.run_log.reader import Run
from monitoring.run_log.run_state import RunState, StageState
from monitoring.run_log.training_curves import Curve, Worker

SIGNS = {"finished": "✓", "failed": "✗", "cut off": "✗", "running": "●", "left out": "–", "waiting": "○"}
EPOCHS = 15
"""Epochs in the table."""
MESSAGES = 12
WORKERS_NOTE = (
    "Means of a step, lately. A worker's own work is its step without waiting for the exchange with the others: where "
    "one is slow, the others wait."
)

FIGURES = {
    "loss": "Training loss",
    "validation": "Validation",
    "throughput": "Throughput",
    "split": "Where a step's time goes",
}


def skeleton(key: str) -> Part:
    """What stays while the page is open; callbacks fill it."""
    return [
        dcc.Interval(id="run-tick", interval=2000),
        dcc.Store(id="run-drawn"),
        dcc.Store(id="run-digests"),
        dcc.Store(id="run-shown"),
        html.Div(
            [html.H1(key), dcc.Link("Compare", href=f"{COMPARE_PATH}?run={key}", className="button")], className="top"
        ),
        html.Div(id="run-glance"),
        html.Div(id="run-stages"),
        html.Div(id="run-messages"),
        section(
            "Training",
            "training",
            html.Div([figure(name, title) for name, title in FIGURES.items()], className="figures"),
            html.Details([html.Summary("The latest epochs as a table"), html.Div(id="epochs")]),
        ),
        html.Div(
            section("Workers", "workers", scroll(html.Table(id="run-workers"), "Workers"), soft(WORKERS_NOTE)),
            id="workers-card",
            hidden=True,
        ),
        html.Div(id="run-results"),
    ]


def glance(run: Run, state: RunState, now: float) -> Part:
    """Is it alive, how far is it, is it learning, what is slow, is a worker sick?"""
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
    news = "nothing told yet" if state.latest is None else f"last news {ago(state.latest, now)}"
    more = {
        "quiet": f"it lives, but has told nothing for {rough(now - (state.latest or now))}",
        "lost": f"no sign of life{'' if run.beat is None else f' for {rough(now - run.beat.time)}'}: the process died, "
        "or cannot write its workspace; the same command continues it",
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
    return [html.Small(f"{run.monitor.upper()} "), f"{value:.4f}"], more, ""


def _slow(run: Run, state: RunState) -> tuple[Part, Part, str]:
    slowest, rate = run.training.slowest_part(), run.training.by_step.get("samples_per_second")
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


def stages(run: Run, state: RunState, now: float) -> Part:
    rows = [
        html.Li(_stage(stage, state.is_alive), className=f"stage {stage.status.replace(' ', '-')}")
        for stage in state.stages
    ]
    return section("Stages", "stages", html.Ol(rows, className="stages"))


def _stage(stage: StageState, is_alive: bool) -> Part:
    detail = progress_text(stage) if stage.status in ("running", "cut off", "failed") else ""
    took = "" if stage.seconds is None else duration(stage.seconds)
    words = {
        "finished": took or "done before",
        "waiting": "to come" if is_alive else "not run",
        "left out": "not needed",
    }
    return [
        html.Span(SIGNS[stage.status], className="sign", **aria(hidden="true")),
        html.B(stage.name),
        html.Span([bar(stage.share, f"progress of {stage.name}") if stage.status == "running" else None, detail],
                  className="detail"),
        html.Span(words.get(stage.status, f"{stage.status}{f', {took}' if took else ''}"), className="soft"),
    ]  # fmt: skip


def messages(run: Run, state: RunState, now: float) -> Part:
    """What has gone wrong or was repaired, the latest first; nothing where all went well."""
    told = list(reversed(run.told(StageFailed, WorkersRestarted, StageWarning)))
    words = {StageFailed: " failed", WorkersRestarted: " started again", StageWarning: ""}
    notes = [
        html.Li(
            [
                html.B(f"{event.stage}{words[type(event)]} "),
                html.Span(ago(event.time, now), className="soft", title=clock(event.time)),
                html.P(event.message, className="message"),
            ],
            className=f"note {'bad' if isinstance(event, StageFailed) else 'warm'}",
        )
        for event in told[:MESSAGES]
    ]
    if run.problem:
        notes.insert(0, html.Li(html.P(run.problem, className="message"), className="note bad"))
    if not notes:
        return None
    left = soft(f"and {len(told) - MESSAGES} earlier ones") if len(told) > MESSAGES else None
    return section("Messages", "messages", html.Ul(notes, className="notes"), left)


def drawn(run: Run) -> dict[str, tuple[go.Figure, str]]:
    """The figures by name, each with what it shows in words."""
    training, monitor = run.training, run.monitor
    loss, rate = training.by_step.get("loss"), training.by_step.get("samples_per_second")
    by_epoch, validation = training.by_epoch.get("loss"), training.by_epoch.get(monitor)
    best = training.best(monitor)
    made: dict[str, tuple[go.Figure, str]] = {}
    if loss is not None and len(loss.x) >= (0 if by_epoch is None else len(by_epoch.x)):
        made["loss"] = figures.line({"loss": loss}, "step", "loss"), _said(loss, "steps")
    elif by_epoch is not None:
        made["loss"] = figures.line({"loss": by_epoch}, "epoch", "loss"), _said(by_epoch, "epochs")
    if validation is not None and best is not None:
        drawing = figures.line({monitor.upper(): validation}, "epoch", monitor.upper(), best)
        made["validation"] = (
            drawing,
            f"Best {best[1]:.4f} in epoch {best[0]}; {validation.y[-1]:.4f} in epoch {validation.x[-1]:.0f}",
        )
    if rate is not None:
        made["throughput"] = figures.line({"samples/s": rate}, "step", "samples/s"), _said(rate, "steps")
    if training.parts:
        part, share = training.slowest_part() or ("–", 0.0)
        made["split"] = figures.step_split(training.parts), f"Lately {share:.0%} of it is {part}"
    return made


def _said(curve: Curve, unit: str) -> str:
    return f"From {curve.y[0]:.4g} to {curve.y[-1]:.4g} over {number(int(curve.x[-1]))} {unit}"


def epochs(run: Run) -> Part:
    """The latest epochs as a table."""
    curves = run.training.by_epoch
    names = [name for name in ("loss", run.monitor) if name in curves]
    if not names:
        return soft("No epoch has ended yet.")
    columns = [dict(zip(curves[name].x.tolist(), curves[name].y.tolist(), strict=True)) for name in names]
    shown = sorted(columns[0], reverse=True)[:EPOCHS]
    rows = [
        [f"{epoch:.0f}", *(f"{column[epoch]:.4f}" if epoch in column else "–" for column in columns)] for epoch in shown
    ]
    return table(["epoch", *names], rows, "Epochs")


def workers(run: Run, state: RunState, now: float) -> Part:
    """What the table of the workers holds; None where none has told anything."""
    told: Sequence[Worker] = run.training.workers
    if not told:
        return None
    rows = [
        [
            f"rank {worker.rank}",
            worker.complaint or "well",
            worker.means.host,
            number(worker.means.step),
            f"{1e3 * worker.means.seconds:,.1f} ms",
            f"{1e3 * worker.busy:,.1f} ms",
            number(round(worker.means.samples_per_second)),
            number(round(worker.means.rows_served)),
            size(worker.means.bytes_sent),
            size(worker.means.memory_bytes),
            ago(worker.means.time, now),
        ]
        for worker in told
    ]
    head = ["", "health", "machine", "step", "a step", "own work", "samples/s", "rows served", "sent", "memory", "told"]
    marked = [place for place, worker in enumerate(told) if worker.complaint]
    return table_parts(head, rows, "Workers", marked, texts=(1, 2))


LIVE = {"glance": glance, "stages": stages, "messages": messages, "workers": workers}
"""The parts that change while the page is open, by the container that holds them."""
