"""Dash's callbacks: they choose the page, and redraw the parts of it that have changed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote

from dash import ALL, Dash, Input, Output, State, no_update
from dash.exceptions import PreventUpdate
from plotly.utils import PlotlyJSONEncoder

from monitoring.dashboard.components import COMPARE_PATH, RUN_PATH, TUNING_PATH, VERSIONS_PATH, Part, soft
from monitoring.dashboard.pages import comparison, overview, run, tuning, versions
from monitoring.dashboard.run_poller import RunPoller


def register_callbacks(app: Dash, poller: RunPoller) -> None:
    """Let the pages show what the poller reads."""
    _route(app, poller)
    _on_overview(app, poller)
    _on_run(app, poller)
    _on_comparison(app, poller)
    _on_listing(app, "tuning", lambda: tuning.listing(poller.tunings(), poller.runs()))
    _on_listing(app, "versions", lambda: versions.listing(poller.registries(), poller.runs()))


def _route(app: Dash, poller: RunPoller) -> None:
    @app.callback(Output("page", "children"), Input("place", "pathname"), State("place", "search"))
    def show(path: str, search: str) -> Part:
        if path.startswith(RUN_PATH):
            return run.skeleton(unquote(path.removeprefix(RUN_PATH)))
        if path == COMPARE_PATH:
            return comparison.skeleton(poller.runs(), parse_qs((search or "").removeprefix("?")).get("run", []))
        if path == TUNING_PATH:
            return tuning.skeleton()
        if path == VERSIONS_PATH:
            return versions.skeleton()
        return overview.skeleton()


def _changed(parts: Mapping[str, Part], before: Mapping[str, str] | None) -> tuple[dict[str, Part], Any]:
    """Return the parts that differ from those of the page, by name, with `no_update` for the others; and the digests of
    all parts, or `no_update` if none differs.

    Dash replaces everything within a part that changes. A part that stays keeps its elements, and with them the focus.

    Args:
        before: digests of the parts that the page shows.
    """
    digests = {name: _digest(part) for name, part in parts.items()}
    changed = {name: no_update if digests[name] == (before or {}).get(name) else parts[name] for name in parts}
    return changed, no_update if digests == before else digests


def _digest(part: Part) -> str:
    return hashlib.sha256(json.dumps(part, cls=PlotlyJSONEncoder).encode()).hexdigest()


def _on_overview(app: Dash, poller: RunPoller) -> None:
    @app.callback(
        output={
            "parts": {name: Output(f"overview-{name}", "children") for name in overview.PARTS},
            "news": Output({"news": ALL}, "children"),
            "digests": Output("overview-digests", "data"),
        },
        inputs=[Input("overview-tick", "n_intervals"), State("overview-digests", "data"), State({"news": ALL}, "id")],
    )
    def update(_: int, before: dict[str, str] | None, ids: list[dict[str, str]]) -> dict[str, Any]:
        shown = overview.overview(poller.runs(), poller.places, time.time())
        news_by_id = {f"news of {key}": part for key, part in shown.news.items()}
        listing = shown.order or shown.parts["listing"]
        changed, digests = _changed({**shown.parts, "listing": listing, **news_by_id}, before)
        parts = {name: changed[name] for name in overview.PARTS}
        news = [changed[f"news of {each['news']}"] for each in ids if each["news"] in shown.news]
        if parts["listing"] is not no_update:
            # A new listing contains the news of all its runs.
            parts["listing"], news = shown.parts["listing"], [no_update] * len(ids)
        return {"parts": parts, "news": news, "digests": digests}


def _on_run(app: Dash, poller: RunPoller) -> None:
    @app.callback(
        output={
            "parts": {name: Output(f"run-{name}", "children") for name in run.LIVE},
            "digests": Output("run-digests", "data"),
            "no_workers": Output("workers-card", "hidden"),
        },
        inputs=[Input("run-tick", "n_intervals"), State("run-digests", "data"), State("place", "pathname")],
    )
    def update(_: int, before: dict[str, str] | None, path: str) -> dict[str, Any]:
        key, now = unquote(path.removeprefix(RUN_PATH)), time.time()
        shown = poller.run(key)
        if shown is None:
            reading = any(place.read is None for place in poller.places.values())
            absent = "Reading …" if reading else f"There is no run of this name in {', '.join(poller.places)}."
            parts: dict[str, Part] = {**dict.fromkeys(run.LIVE), "glance": soft(absent)}
        else:
            parts = {name: part(shown, shown.state(now), now) for name, part in run.LIVE.items()}
        changed, digests = _changed(parts, before)
        no_workers = no_update if changed["workers"] is no_update else parts["workers"] is None
        return {"parts": changed, "digests": digests, "no_workers": no_workers}

    names = list(run.FIGURES)

    @app.callback(
        output={
            "figures": [Output(name, "figure") for name in names],
            "said": [Output(f"{name}-said", "children") for name in names],
            "hidden": [Output(f"{name}-card", "hidden") for name in names],
            "epochs": Output("epochs", "children"),
            "drawn": Output("run-drawn", "data"),
        },
        inputs=[Input("run-tick", "n_intervals"), State("run-drawn", "data"), State("place", "pathname")],
    )
    def draw(_: int, drawn_before: Any, path: str) -> dict[str, Any]:
        shown = poller.run(unquote(path.removeprefix(RUN_PATH)))
        state = None if shown is None else [shown.key, shown.version]
        if shown is None or state == drawn_before:
            raise PreventUpdate
        drawn = run.drawn(shown)
        return {
            "figures": [drawn[name][0] if name in drawn else no_update for name in names],
            "said": [drawn[name][1] if name in drawn else "" for name in names],
            "hidden": [name not in drawn for name in names],
            "epochs": run.epochs(shown),
            "drawn": state,
        }


def _on_comparison(app: Dash, poller: RunPoller) -> None:
    @app.callback(
        output={
            "options": Output("chosen", "options"),
            "metrics": Output("metric", "options"),
            "metric": Output("metric", "value"),
            "figure": Output("compared", "figure"),
            "said": Output("compared-said", "children"),
            "hidden": Output("compared-card", "hidden"),
            "parts": {name: Output(f"comparison-{name}", "children") for name in comparison.PARTS},
            "digests": Output("compare-digests", "data"),
            "drawn": Output("compare-drawn", "data"),
        },
        inputs={
            "_": Input("compare-tick", "n_intervals"),
            "chosen": Input("chosen", "value"),
            "metric": Input("metric", "value"),
            "drawn_before": State("compare-drawn", "data"),
            "before": State("compare-digests", "data"),
        },
    )
    def update(
        _: int, chosen: Sequence[str] | None, metric: str | None, drawn_before: Any, before: dict[str, str] | None
    ) -> dict[str, Any]:
        known = poller.runs()
        runs = [each for each in known if each.key in (chosen or ())]
        names, now = comparison.metrics(runs), time.time()
        metric = metric if metric in names else next(iter(names), None)
        versions = [[each.key, each.version, each.state(now).status] for each in runs]
        state = [metric, len(known), versions]
        if state == drawn_before:
            raise PreventUpdate
        parts, digests = _changed(comparison.comparison(runs, now), before)
        return {
            "options": comparison.options(known),
            "metrics": [comparison.label(name) for name in names],
            "metric": metric,
            "figure": comparison.curves(runs, metric) if metric else no_update,
            "said": f"{metric} of {len(runs)} runs" if metric else "",
            "hidden": metric is None,
            "parts": parts,
            "digests": digests,
            "drawn": state,
        }


def _on_listing(app: Dash, name: str, listing: Callable[[], Part]) -> None:
    """Let a page that is one listing (`listing_page`) show it."""

    @app.callback(
        output={"listing": Output(f"{name}-listing", "children"), "digests": Output(f"{name}-digests", "data")},
        inputs=[Input(f"{name}-tick", "n_intervals"), State(f"{name}-digests", "data")],
    )
    def update(_: int, before: dict[str, str] | None) -> dict[str, Any]:
        changed, digests = _changed({"listing": listing()}, before)
        return {**changed, "digests": digests}
