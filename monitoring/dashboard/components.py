"""Small parts that the pages are put together from. Texts are children of components, which React escapes."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import plotly.graph_objects as go
from dash import dcc, html

from monitoring.dashboard.plotly_figures import CONFIG, sparkline
from monitoring.presentation.formats import duration, number, rough
from monitoring.run_log.reader import Run
from monitoring.run_log.run_state import StageState

Part = Any
"""A component of Dash, a text, or a list of them."""

TONES = {"running": "good", "finished": "calm", "failed": "bad", "lost": "bad", "quiet": "warm", "stopped": "warm"}
WORDS = {"empty": "not started"}
RUN_PATH, COMPARE_PATH, REPORT_PATH = "/run/", "/compare", "/report"


def aria(**names: str) -> dict[str, Any]:
    """Attributes for those who do not see the page: `label`, `labelledby`, `hidden`."""
    return {f"aria-{name}": value for name, value in names.items()}


def badge(status: str) -> Part:
    """A run's state: a word, and a dot of its colour."""
    return html.Span(
        [html.Span(className="dot"), WORDS.get(status, status)], className=f"badge {TONES.get(status, 'calm')}"
    )


def link_to(run: Run) -> Part:
    return dcc.Link(run.key, href=RUN_PATH + quote(run.key), className="name")


def bar(share: float | None, label: str) -> Part:
    """How far something is; without a share, that it goes on."""
    if share is None:
        return html.Progress(**aria(label=label))
    return html.Progress(value=f"{share:.4f}", max="1", **aria(label=label))


def ago(moment: float, now: float) -> str:
    return "just now" if now - moment < 2 else f"{rough(now - moment)} ago"


def clock(moment: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def progress_text(stage: StageState) -> str:
    """How far a stage is and how long still, such as "1,240 / 4,400 steps · 12.3/s · about 4 min left"."""
    texts = []
    if stage.done is not None:
        total = f" / {number(int(stage.total))}" if stage.total is not None else ""
        texts.append(f"{number(int(stage.done))}{total} {stage.unit}".strip())
    if stage.rate is not None:
        texts.append(f"{stage.rate:,.3g}/s")
    if stage.remaining is not None:
        least = "at most" if stage.name == "train" else "about"  # a training may stop early
        texts.append(f"{least} {rough(stage.remaining)} left")
    elif not texts and stage.seconds is not None:
        texts.append(f"for {duration(stage.seconds)}")
    return " · ".join(texts)


def figure(name: str, title: str, drawing: go.Figure | None = None, said: str = "") -> Part:
    """A card with a figure and what it shows in words. Callbacks find the graph by `name`, and `name-said`,
    `name-card`."""
    graph = dcc.Graph(id=name, figure=drawing or go.Figure(), config=CONFIG, responsive="auto", className="graph")
    caption = [html.B(title), html.Span(said, id=f"{name}-said", className="soft")]
    return html.Figure(
        [
            html.Figcaption(caption, id=f"{name}-title"),
            html.Div(graph, role="group", **aria(labelledby=f"{name}-title")),
        ],
        id=f"{name}-card",
        className="card",
        hidden=drawing is None,
    )


def spark(values: Sequence[float], said: str) -> Part:
    encoded = base64.b64encode(sparkline(values).encode()).decode()
    return html.Img(src=f"data:image/svg+xml;base64,{encoded}", alt=said, className="spark")


def table(
    head: Sequence[Part],
    rows: Sequence[Sequence[Part]],
    caption: str,
    marked: Sequence[int] = (),
    texts: Sequence[int] = (),
) -> Part:
    """A table that scrolls; the arguments are those of `table_parts`."""
    return scroll(html.Table(table_parts(head, rows, caption, marked, texts)), caption)


def table_parts(
    head: Sequence[Part],
    rows: Sequence[Sequence[Part]],
    caption: str,
    marked: Sequence[int] = (),
    texts: Sequence[int] = (),
) -> list[Part]:
    """What a table holds. The first cell of a row names it.

    Args:
        marked: numbers of the rows that need attention.
        texts: numbers of the columns that hold words, no numbers.
    """
    kind = ["text" if column in texts else "" for column in range(max(map(len, [head, *rows])))]
    body = [
        html.Tr(
            [
                html.Th(row[0], scope="row"),
                *(html.Td(cell, className=kind[column]) for column, cell in enumerate(row[1:], start=1)),
            ],
            className="concern" if place in marked else "",
        )
        for place, row in enumerate(rows)
    ]
    named = [
        html.Th(cell, scope="col", className=kind[place]) if cell else html.Td() for place, cell in enumerate(head)
    ]
    columns = [html.Thead(html.Tr(named))] if head else []
    return [html.Caption(caption, className="unseen"), *columns, html.Tbody(body)]


def scroll(table: Part, label: str) -> Part:
    """Around what may be wider than the page. What scrolls must be reached by the keyboard."""
    return html.Div(table, className="scroll", tabIndex="0", role="group", **aria(label=label))


def section(title: str, name: str, *parts: Part) -> Part:
    return html.Section([html.H2(title, id=name), *parts], **aria(labelledby=name))


def soft(*parts: Part) -> Part:
    return html.P(list(parts), className="soft")
