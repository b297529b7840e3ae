"""Small components that the pages share. Texts are children of components, which React escapes."""

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
"""A component of Dash, a text, None, or a list of these."""

TONES = {"running": "good", "finished": "calm", "failed": "bad", "lost": "bad", "quiet": "warm", "stopped": "warm"}
WORDS = {"empty": "not started"}
RUN_PATH, COMPARE_PATH, TUNING_PATH, VERSIONS_PATH, REPORT_PATH = "/run/", "/compare", "/tuning", "/versions", "/report"


def aria(**names: str) -> dict[str, Any]:
    """ARIA attributes for screen readers: `label`, `labelledby`, `hidden`."""
    return {f"aria-{name}": value for name, value in names.items()}


def badge(status: str) -> Part:
    """The state of a run: a word and a coloured dot."""
    return toned_badge(WORDS.get(status, status), TONES.get(status, "calm"))


def toned_badge(word: str, tone: str) -> Part:
    """A word and a dot in the colour of a tone."""
    return html.Span([html.Span(className="dot"), word], className=f"badge {tone}")


def listing_page(name: str, title: str) -> Part:
    """The frame of a page that is one listing, `NAME-listing`."""
    return [
        dcc.Interval(id=f"{name}-tick", interval=2000),
        dcc.Store(id=f"{name}-digests"),
        html.H1(title),
        html.Div(id=f"{name}-listing"),
    ]


def link_to(run: Run) -> Part:
    """A link to the page of a run: its short name, above the folders that it lies in, if any."""
    folders, _, name = run.key.rpartition("/")
    link = dcc.Link(name, href=RUN_PATH + quote(run.key), className="name")
    return html.Div([link, html.Small(f"in {folders}", className="where")]) if folders else link


def bar(share: float | None, label: str) -> Part:
    """A progress bar; without a share it shows only that work goes on."""
    if share is None:
        return html.Progress(**aria(label=label))
    return html.Progress(value=f"{share:.4f}", max="1", **aria(label=label))


def ago(moment: float, now: float) -> str:
    """Time since a moment, such as "about 4 min ago"."""
    return "just now" if now - moment < 2 else f"{rough(now - moment)} ago"


def clock(moment: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def progress_text(stage: StageState) -> str:
    """Progress and time left of a stage, such as "1,240 / 4,400 steps · 12.3/s · about 4 min left"."""
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
    """A card with a figure and its content in words. Its elements have the ids `name` (the graph), `name-said` (the
    words) and `name-card`."""
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
    """A tiny line as an image, with its content in words for screen readers."""
    encoded = base64.b64encode(sparkline(values).encode()).decode()
    return html.Img(src=f"data:image/svg+xml;base64,{encoded}", alt=said, className="spark")


def table(
    head: Sequence[Part],
    rows: Sequence[Sequence[Part]],
    caption: str,
    marked: Sequence[int] = (),
    texts: Sequence[int] = (),
) -> Part:
    """A table that scrolls where it is wider than the page; takes the arguments of `table_parts`."""
    return scroll(html.Table(table_parts(head, rows, caption, marked, texts)), caption)


def table_parts(
    head: Sequence[Part],
    rows: Sequence[Sequence[Part]],
    caption: str,
    marked: Sequence[int] = (),
    texts: Sequence[int] = (),
) -> list[Part]:
    """The content of a table. The first cell of a row names the row.

    Args:
        marked: numbers of the rows that need attention.
        texts: numbers of the columns that hold words instead of numbers.
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
    """A frame in which a table that is wider than the page can be scrolled, also with the keyboard."""
    return html.Div(table, className="scroll", tabIndex="0", role="group", **aria(label=label))


def section(title: str, name: str, *parts: Part) -> Part:
    """A section with a heading, whose id is `name`."""
    return html.Section([html.H2(title, id=name), *parts], **aria(labelledby=name))


def soft(*parts: Part) -> Part:
    """A paragraph in the colour of secondary text."""
    return html.P(list(parts), className="soft")
