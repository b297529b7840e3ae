"""The page of one run: five answers at a glance, stages, messages, training, workers, and a link to the report."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import plotly.graph_objects as go
from dash import dcc, html

from alphafuse.events import StageFailed, StageWarning, WorkersRestarted
from monitoring.dashboard import plotly_figures
from monitoring.dashboard.components import (
    COMPARE_PATH,
    REPORT_PATH,
    Part,
    ago,
    aria,
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
from monitoring.dashboard.pages.five_answers import five_answers
from monitoring.presentation.formats import duration, number, size
from monitoring.run_log.reader import Run
from monitoring.run_log.run_state import RunState, StageState
from monitoring.run_log.training_curves import Curve, Worker

SIGNS = {"finished": "✓", "failed": "✗", "cut off": "✗", "running": "●", "left out": "–", "waiting": "○"}
EPOCHS = 15
"""Number of epochs in the table."""
MESSAGES = 12
"""Largest number of messages that are shown."""
WORKERS_NOTE = (
    "Recent means of a step. A worker's own work is the time of a step without waiting for the others: "
    "where one worker is slow, the others wait."
)

FIGURES = {
    "loss": "Training loss",
    "validation": "Validation",
    "throughput": "Throughput",
    "split": "Where a step's time goes",
}


def skeleton(key: str) -> Part:
    """The frame that stays while the page is open; callbacks fill it."""
    links = [
        html.A("Report", href=f"{REPORT_PATH}?run={quote(key)}", className="button"),
        dcc.Link("Compare", href=f"{COMPARE_PATH}?run={quote(key)}", className="button"),
    ]
    return [
        dcc.Interval(id="run-tick", interval=2000),
        dcc.Store(id="run-drawn"),
        dcc.Store(id="run-digests"),
        html.Div([html.H1(key), html.Div(links, className="buttons")], className="top"),
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
    ]


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
    """Failures, restarts and warnings, the latest first; None where there are none."""
    events = list(reversed(run.latest_events(StageFailed, WorkersRestarted, StageWarning)))
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
        for event in events[:MESSAGES]
    ]
    if run.problem:
        notes.insert(0, html.Li(html.P(run.problem, className="message"), className="note bad"))
    if not notes:
        return None
    left = soft(f"and {len(events) - MESSAGES} earlier ones") if len(events) > MESSAGES else None
    return section("Messages", "messages", html.Ul(notes, className="notes"), left)


def drawn(run: Run) -> dict[str, tuple[go.Figure, str]]:
    """The figures that there are data for, by name, each with its content in words."""
    training, monitor = run.training, run.monitor
    loss, rate = training.by_step.get("loss"), training.by_step.get("samples_per_second")
    by_epoch, validation = training.by_epoch.get("loss"), training.by_epoch.get(monitor)
    best = training.best(monitor)
    made: dict[str, tuple[go.Figure, str]] = {}
    if loss is not None and len(loss.x) >= (0 if by_epoch is None else len(by_epoch.x)):
        made["loss"] = plotly_figures.line({"loss": loss}, "step", "loss"), _said(loss, "steps")
    elif by_epoch is not None:
        made["loss"] = plotly_figures.line({"loss": by_epoch}, "epoch", "loss"), _said(by_epoch, "epochs")
    if validation is not None and best is not None:
        drawing = plotly_figures.line({monitor.upper(): validation}, "epoch", monitor.upper(), best)
        made["validation"] = (
            drawing,
            f"Best {best[1]:.4f} in epoch {best[0]}; {validation.y[-1]:.4f} in epoch {validation.x[-1]:.0f}",
        )
    if rate is not None:
        made["throughput"] = plotly_figures.line({"samples/s": rate}, "step", "samples/s"), _said(rate, "steps")
    if training.spans:
        span, share = training.slowest_span() or ("–", 0.0)
        made["split"] = plotly_figures.step_split(training.spans), f"Recently, {share:.0%} of a step is {span}"
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
    """The content of the table of workers; None where no worker has reported."""
    workers: Sequence[Worker] = run.training.workers
    if not workers:
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
        for worker in workers
    ]
    head = [
        "",
        "health",
        "machine",
        "step",
        "a step",
        "own work",
        "samples/s",
        "rows served",
        "sent",
        "memory",
        "reported",
    ]
    marked = [place for place, worker in enumerate(workers) if worker.complaint]
    return table_parts(head, rows, "Workers", marked, texts=(1, 2))


LIVE = {"glance": five_answers, "stages": stages, "messages": messages, "workers": workers}
"""Functions that make the parts that change while the page is open, by the name of the part."""
