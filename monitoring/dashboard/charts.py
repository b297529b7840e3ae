"""Interactive figures of a run. Text, grid and background take the page's colours (assets/dashboard.css)."""

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
"""Of every graph: what its few buttons are."""
HEIGHT = 240
"""Of a figure, in pixels; its width is that of its card."""


def line(curves: Mapping[str, Curve], x: str, y: str, best: tuple[float, float] | None = None) -> go.Figure:
    """Curves by name over steps or epochs.

    Args:
        best: a point of the only curve that is marked.
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


def step_split(parts: Mapping[str, Curve]) -> go.Figure:
    """Milliseconds of a step by what they go to, stacked."""
    figure = _figure("step", "ms a step", legend=True)
    for number, name in enumerate([*SPANS, "rest"]):
        if name in parts and np.nansum(parts[name].y) > 0:
            # All parts are told at the same steps: thinned alike, they stay stackable.
            curve = parts[name]
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


def spectrum(eigenvalues: np.ndarray, row_dim: int, hidden_dim: int) -> go.Figure:
    """Eigenvalues of the embeddings' covariance, descending, with the cut between row space and null space."""
    figure = _figure("direction", "eigenvalue", legend=True)
    shown = np.maximum(eigenvalues, eigenvalues[0] * 1e-5)
    regions = (
        (0, row_dim, BLUE, "row space, frozen"),
        (row_dim, hidden_dim, ORANGE, "null space, IDs learn here"),
        (hidden_dim, len(shown), GRAY, "left out"),
    )
    for start, stop, color, name in regions:
        if start < stop:
            end = min(stop + 1, len(shown))  # up to the next region
            figure.add_scatter(
                x=list(range(start + 1, end + 1)),
                y=shown[start:end].tolist(),
                name=f"{name} ({stop - start})",
                mode="lines",
                line={"color": color, "width": 2},
                fill="tozeroy",
                fillcolor=f"rgba({','.join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))},0.25)",
                hovertemplate="%{y:.4~g}<extra></extra>",
            )
    if 0 < row_dim < len(shown):
        figure.add_vline(x=row_dim + 1, line={"color": GRAY, "dash": "dot", "width": 1.5})
    low = float(np.log10(shown.min()))
    figure.update_yaxes(type="log", range=[low - 0.1, float(np.log10(shown[0])) + 0.2], exponentformat="power")
    return figure


def sparkline(values: Sequence[float], width: int = 110, height: int = 28) -> str:
    """A tiny line as an SVG document, for a row of a list."""
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
        "uirevision": "kept",  # a zoom outlives new points
    }
    return go.Figure(layout=layout)


def _plain(text: str) -> str:
    """Text that plotly shows as it is: in its texts some tags of HTML have a meaning."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
