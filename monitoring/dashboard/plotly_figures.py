"""Interactive figures of a run. Text, grid and background take the colours of the page (assets/dashboard.css)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from alphafuse.events import SPANS
from monitoring.presentation.palette import BLUE, GRAY, ORANGE, SERIES
from monitoring.run_log.training_curves import Curve

CONFIG: Any = {
    "displaylogo": False,
    "displayModeBar": "hover",
    "modeBarButtons": [["zoom2d", "pan2d", "resetScale2d"]],
    "responsive": True,
}
"""Settings of every graph: three buttons, and a width that follows the card."""
HEIGHT = 240
"""Height of a figure in pixels."""


def line(curves: Mapping[str, Curve], x: str, y: str, best: tuple[float, float] | None = None) -> go.Figure:
    """Curves by name over steps or epochs.

    Args:
        best: x and y of a point to be marked, if there is one curve.
    """
    figure = _figure(x, y, legend=len(curves) > 1)
    for number, (name, curve) in enumerate(curves.items()):
        shown = curve.thinned()
        figure.add_scatter(
            x=shown.x.tolist(),
            y=shown.y.tolist(),
            name=_plain(name),
            mode="lines+markers" if len(shown.x) < 20 else "lines",
            line={"color": SERIES[number % len(SERIES)], "width": 2},
            hovertemplate="%{y:.4~g}" + f"<extra>{_plain(name)}</extra>",
        )
    if best is not None:
        figure.add_scatter(
            x=[best[0]],
            y=[best[1]],
            mode="markers",
            marker={"color": ORANGE, "size": 11},
            hoverinfo="skip",
            showlegend=False,
        )
    return figure


def step_split(spans: Mapping[str, Curve]) -> go.Figure:
    """Milliseconds of a step by span, stacked."""
    figure = _figure("step", "ms a step", legend=True)
    for number, name in enumerate([*SPANS, "rest"]):
        if name in spans and np.nansum(spans[name].y) > 0:
            # All spans are reported at the same steps: thinned alike, they can be stacked.
            curve = spans[name]
            kept = np.linspace(0, len(curve.x) - 1, min(len(curve.x), 300)).astype(int)
            color = GRAY if name == "rest" else SERIES[number]
            figure.add_scatter(
                x=curve.x[kept].tolist(),
                y=(1e3 * curve.y[kept]).tolist(),
                name=name,
                stackgroup="parts",
                mode="lines",
                line={"color": color, "width": 1},
                hovertemplate="%{y:.3~g} ms" + f"<extra>{name}</extra>",
            )
    figure.update_yaxes(rangemode="tozero")
    return figure


def sparkline(values: Sequence[float], width: int = 110, height: int = 28) -> str:
    """A tiny line as an SVG document, for a row in the list of runs."""
    curve = Curve(np.arange(len(values), dtype=float), np.asarray(values, dtype=float)).thinned(100)
    low, high = float(np.nanmin(curve.y)), float(np.nanmax(curve.y))
    x = 2 + (width - 4) * curve.x / max(1.0, curve.x[-1])
    y = height - 3 - (height - 6) * (curve.y - low) / (high - low or 1.0)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True) if np.isfinite(b))
    line = f'<polyline points="{points}" fill="none" stroke="{BLUE}" stroke-width="1.8" stroke-linejoin="round"/>'
    end = f'<circle cx="{x[-1]:.1f}" cy="{y[-1]:.1f}" r="2.4" fill="{ORANGE}"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{line}{end}</svg>'


def _figure(x: str, y: str, legend: bool) -> go.Figure:
    axis: dict[str, Any] = {"showline": False, "zeroline": False, "ticks": "", "fixedrange": False}
    layout: dict[str, Any] = {
        "template": None,
        "height": HEIGHT,
        "autosize": True,
        "margin": {"l": 60, "r": 12, "t": 36 if legend else 12, "b": 42},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": 'system-ui, "Segoe UI", Helvetica, Arial, sans-serif', "size": 12},
        "hovermode": "x unified",
        "dragmode": False,  # so that a finger on a figure scrolls the page
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        "xaxis": {**axis, "title": {"text": x, "standoff": 6}, "showgrid": False},
        "yaxis": {**axis, "title": {"text": _plain(y), "standoff": 6}, "showgrid": True, "nticks": 6},
        "uirevision": "kept",  # keeps the reader's zoom when new points come
    }
    return go.Figure(layout=layout)


def _plain(text: str) -> str:
    """Escapes a text for plotly, which reads some HTML tags in its texts."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
