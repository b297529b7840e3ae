"""The first page: all runs; those that go on come first, then those that need attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dash import dcc, html

from alphafuse.stages import STAGE_NAMES
from monitoring.dashboard.components import TONES, WORDS, Part, ago, badge, bar, link_to, progress_text, soft, spark
from monitoring.dashboard.final_result import final_result
from monitoring.dashboard.run_poller import Place
from monitoring.run_log.reader import Run
from monitoring.run_log.run_state import RunState, RunStatus

LATE_SECONDS = 30.0
"""A place that was read longer ago is marked with its age."""
ORDER: tuple[RunStatus, ...] = ("running", "quiet", "lost", "failed", "stopped", "finished", "empty")
PARTS = ("trouble", "summary", "listing", "reading")


@dataclass(frozen=True)
class Overview:
    """The content of the page.

    Attributes:
        parts: parts of the page, by the names in `PARTS`.
        order: keys and states of the runs as they are listed. While the order stays the same, the listing is kept,
            with the reader's focus and opened details, and only its `news` change.
        news: changing cells of each run's row, by the run's key.
    """

    parts: dict[str, Part]
    order: list[tuple[str, RunStatus]]
    news: dict[str, Part]


def skeleton() -> Part:
    """The frame that stays while the page is open; callbacks fill it."""
    return [
        dcc.Interval(id="overview-tick", interval=2000),
        html.H1("Runs"),
        *[html.Div(id=f"overview-{name}") for name in PARTS],
        dcc.Store(id="overview-digests"),
    ]


def overview(runs: Sequence[Run], places: Mapping[str, Place], now: float) -> Overview:
    states = [(run, run.state(now)) for run in runs]
    states.sort(key=lambda pair: (_is_aside(*pair), *_rank(pair[1]), pair[0].key))
    news = {run.key: _news(run, state, now) for run, state in states}
    rows = [(_is_aside(run, state), _row(run, state, news[run.key])) for run, state in states]
    shown, aside = ([row for is_aside, row in rows if is_aside == wanted] for wanted in (False, True))
    trouble = [html.P([html.B(place.name), f" cannot be read: {place.problem}"], className="note bad", role="alert")
               for place in places.values() if place.problem]  # fmt: skip
    listing = html.Ul(shown, className="runs") if shown else _nothing(places)
    parts = {
        "trouble": html.Div(trouble, className="notes"),
        "summary": _summary([state for _, state in states]),
        "listing": [listing, _shared(aside)],
        "reading": _reading(places, now),
    }
    return Overview(parts, [(run.key, state.status) for run, state in states], news)


def _is_aside(run: Run, state: RunState) -> bool:
    """True for a workspace of stages that the runs of a comparison share, unless it needs attention."""
    return "shared" in run.key.split("/")[:-1] and state.status in ("finished", "empty")


def _shared(rows: Sequence[Part]) -> Part:
    if not rows:
        return None
    return html.Details([html.Summary(f"Stages that runs share ({len(rows)})"), html.Ul(list(rows), className="runs")])


def _rank(state: RunState) -> tuple[int, float]:
    """Sort key: runs that go on, then runs that may need attention, then the others; the latest first within the last
    two groups. Runs that go on keep their order, as all of them report all the time."""
    if state.is_alive:
        return 0, 0.0
    # The end of the stage, since a stage that was skipped later is no news.
    latest = (state.stage and state.stage.ended) or state.latest or 0.0
    return 1 if TONES.get(state.status) in ("bad", "warm") else 2, -latest


def _summary(states: Sequence[RunState]) -> Part:
    counts = Counter(state.status for state in states)
    counted = [f"{count} {WORDS.get(status, status)}" for status in ORDER if (count := counts[status])]
    return soft(", ".join(counted)) if counted else None


def _row(run: Run, state: RunState, news: Part) -> Part:
    return html.Li(
        [
            html.Div([link_to(run), badge(state.status)], className="who"),
            html.Div(news, id={"news": run.key}, className="news"),
        ],
        className=f"run {TONES.get(state.status, '')}",
    )


def _news(run: Run, state: RunState, now: float) -> Part:
    """The cells of a run's row that change: current work, results, and the trend of the validation metric."""
    best, test, metric = run.training.best(run.monitor), final_result(run), run.monitor.upper()
    numbers = []
    if best is not None:
        numbers.append(_number(best[1], f"validation {metric}"))
    if test is not None:
        numbers.append(_number(test.value, f"test {metric}", f"seen items {test.seen}"))
    curve = run.training.by_epoch.get(run.monitor)
    trend = None
    if curve is not None and len(curve.y) > 1:
        said = f"{run.monitor.upper()} over {len(curve.y)} validations, from {curve.y[0]:.4f} to {curve.y[-1]:.4f}"
        trend = spark(curve.y.tolist(), said)
    return [
        html.Div(_doing(run, state, now), className="doing"),
        html.Div(numbers, className="numbers"),
        html.Div(trend, className="trend"),
    ]


def _number(value: float, *said: str) -> Part:
    return html.Span([html.B(f"{value:.4f}"), *map(html.Small, said)])


def _doing(run: Run, state: RunState, now: float) -> Part:
    stage, when = state.stage, "" if state.latest is None else ago(state.latest, now)
    if stage is None:
        done = ", ".join(each for each in STAGE_NAMES if each in run.committed)
        return soft(f"finished: {done}" if done else "no stage has reported anything")
    if state.is_alive and stage.status == "running":
        progress = bar(stage.share, f"{run.key}: progress of {stage.name}")
        return [html.Div([html.B(stage.name), " ", progress_text(stage)]), progress]
    if state.status == "failed":
        return [html.Div([html.B(stage.name), f" failed {when}"]), html.P(stage.message, className="message")]
    if state.status in ("lost", "stopped"):
        word = "was interrupted" if state.status == "stopped" else "stopped without notice"
        return html.Div([html.B(stage.name), f" {word}, last report {when}"])
    return soft(html.B(stage.name), " finished" if stage.ended is None else f" finished {ago(stage.ended, now)}")


def _nothing(places: Mapping[str, Place]) -> Part:
    names = ", ".join(places)
    if any(place.read is None and not place.problem for place in places.values()):
        return soft(f"Reading {names} …")
    return html.Div(
        [
            html.H2("No runs yet"),
            html.P([f"There is no workspace in {names}. Start a run beside this page, and it appears here:"]),
            html.Pre("alphafuse run configs/quickstart.yaml"),
        ],
        className="card empty",
    )


def _reading(places: Mapping[str, Place], now: float) -> Part:
    lines = []
    for place in places.values():
        late = place.read is not None and now - place.read > LATE_SECONDS
        lines.append(f"{place.name}{', reading …' if place.read is None else ''}"
                    f"{f', read {ago(place.read, now)}' if late and place.read else ''}")  # fmt: skip
    return html.Footer(soft("From ", "; ".join(lines)))
