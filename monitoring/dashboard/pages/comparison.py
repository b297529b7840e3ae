"""Runs side by side: a metric over their epochs, their results, and the settings in which they differ."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from dash import dcc, html

from monitoring.dashboard import plotly_figures
from monitoring.dashboard.components import Part, badge, figure, link_to, section, soft, table
from monitoring.dashboard.final_result import final_result
from monitoring.presentation.formats import duration
from monitoring.run_log.reader import Run

FIRST = 4
"""Number of runs, the latest that have trained, that are chosen where the user has chosen none."""
PARTS = ("results", "settings")
OPERATIONAL_DATA = ("resources", "shard_rows")
"""Settings of the section `data` that do not change what is trained on and tested."""


def skeleton(runs: Sequence[Run], wanted: Sequence[str]) -> Part:
    """The frame of the page, with some runs chosen: the wanted ones, then the latest that were validated."""
    trained = sorted(
        (run for run in runs if run.training.by_epoch), key=lambda run: -(run.state(run.read).latest or 0.0)
    )
    first = [run.key for run in trained if run.key not in wanted]
    chosen = [*wanted, *first[: max(0, FIRST - len(wanted))]]
    choose = dcc.Dropdown(
        id="chosen", options=options(runs), value=chosen, multi=True, placeholder="Choose runs", closeOnSelect=False
    )
    metrics = dcc.Dropdown(id="metric", options=[], value=None, clearable=False, searchable=False)
    return [
        dcc.Interval(id="compare-tick", interval=2000),
        dcc.Store(id="compare-drawn"),
        dcc.Store(id="compare-digests"),
        html.H1("Compare"),
        html.Div(
            [
                html.Div([html.Label("Runs", htmlFor="chosen"), choose], className="wide"),
                html.Div([html.Label("Curve", htmlFor="metric"), metrics]),
            ],
            className="choices",
        ),
        figure("compared", "Over the epochs"),
        *[html.Div(id=f"comparison-{name}") for name in PARTS],
    ]


def options(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Runs as options of the drop-down list."""
    return [{"label": run.key, "value": run.key} for run in runs if run.events]


def metrics(runs: Sequence[Run]) -> list[str]:
    """Names of the curves that any of the runs has; the monitored metric first, then the loss."""
    names = dict.fromkeys([*(run.monitor for run in runs), "loss"])
    names |= dict.fromkeys(name for run in runs for name in run.training.by_epoch)
    return [name for name in names if any(name in run.training.by_epoch for run in runs)]


def short_names(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by their names without the folders that all of them are in."""
    folders = [run.key.split("/")[:-1] for run in runs]
    shared = list(itertools.takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False)))
    return {"/".join(run.key.split("/")[len(shared) :]): run for run in runs}


def label(metric: str) -> dict[str, str]:
    """A metric as an option of the drop-down list."""
    name = "training loss" if metric == "loss" else f"validation {metric.upper()}"
    return {"label": name, "value": metric}


def curves(runs: Sequence[Run], metric: str) -> go.Figure:
    of_runs = {
        name: run.training.by_epoch[metric]
        for name, run in short_names(runs).items()
        if metric in run.training.by_epoch
    }
    drawing = plotly_figures.line(of_runs, "epoch", metric if metric == "loss" else metric.upper())
    drawing.update_layout(showlegend=True, height=1.4 * plotly_figures.HEIGHT)
    return drawing


def comparison(runs: Sequence[Run], now: float) -> dict[str, Part]:
    """The parts below the curves, by the names in `PARTS`."""
    if not runs:
        return {"results": soft("Choose runs to compare."), "settings": None}
    return {"results": _results(runs, now), "settings": _differences(runs)}


def data_sets(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by the data that they were trained and tested on: names of source and split, numbered where several data
    sets have the same names."""
    by_settings: dict[str, list[Run]] = {}
    for run in runs:
        data = {name: value for name, value in run.settings.get("data", {}).items() if name not in OPERATIONAL_DATA}
        by_settings.setdefault(json.dumps(data, sort_keys=True), []).append(run)
    named, uses = dict[str, list[Run]](), Counter[str]()
    for same in by_settings.values():
        name = _data_name(same[0].settings.get("data", {}))
        uses[name] += 1
        named[name if uses[name] == 1 else f"{name} #{uses[name]}"] = same
    return named


def _data_name(data: Mapping[str, Any]) -> str:
    places = (data.get("folder"), data.get("interactions", {}).get("path"))
    path = "/".join(str(place) for place in places if place not in (None, "", "."))
    return f"{path or 'data'}, split {data.get('split', {}).get('kind', 'unknown')}"


def _results(runs: Sequence[Run], now: float) -> Part:
    groups = data_sets(runs)
    parts: list[Part] = [_results_table("Results", runs, now)]
    if len(groups) > 1:
        parts = [part for name, of in groups.items() for part in (html.H3(name), _results_table(name, of, now))]
    legend = "The best result on the test split is bold, among those on the same data that are measured alike."
    return section("Results", "results", *parts, soft(legend))


def _results_table(name: str, runs: Sequence[Run], now: float) -> Part:
    """Results on one data set."""
    best = {run.key: run.training.best(run.monitor) for run in runs}
    results = {run.key: final_result(run) for run in runs}
    top: dict[tuple[str, str], float] = {}  # best value among results that are measured alike
    for result in results.values():
        if result is not None:
            kind = (result.metric, result.seen)
            top[kind] = max(result.value, top.get(kind, 0.0))
    rows = []
    for run in runs:
        state, validation, test = run.state(now), best[run.key], results[run.key]
        seconds = next((stage.seconds for stage in state.stages if stage.name == "train"), None)
        score: Part = "–"
        if test is not None:
            said = f"{test.value:.4f}"
            score = html.B(said) if test.value == top[test.metric, test.seen] else said
        rows.append(
            [
                link_to(run),
                badge(state.status),
                run.monitor.upper(),
                "–" if validation is None else f"{validation[1]:.4f}",
                "–" if validation is None else str(validation[0]),
                score,
                "–" if test is None else test.seen,
                "–" if seconds is None else duration(seconds),
            ]
        )
    head = ["run", "state", "metric", "best validation", "in epoch", "test", "seen items", "training"]
    return table(head, rows, name, texts=(1, 2, 6))


def _differences(runs: Sequence[Run]) -> Part:
    """A table of the settings in which the runs differ."""
    flat = [dict(_flat(run.settings)) for run in runs]
    names = dict.fromkeys(name for settings in flat for name in settings)
    rows = [
        [name, *(settings.get(name, "–") for settings in flat)]
        for name in names
        if name != "workspace" and len({settings.get(name) for settings in flat}) > 1
    ]
    if not rows:
        return section("Settings", "settings", soft("These runs have the same settings."))
    return section("Settings that differ", "settings", table(["", *short_names(runs)], rows, "Settings"))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names of all settings, with their values as text."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "–" if value is None else str(value)
