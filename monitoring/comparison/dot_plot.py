"""Draws a comparison: a panel for each metric, and in it a dot with the spread over the seeds for each row."""

from __future__ import annotations

import io
import math
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from alphafuse.evaluation.comparison.method_comparison import Comparison
from monitoring.presentation.palette import BLUE, GRAY, ORANGE
from monitoring.report.svg_figures import STYLE

_TEXT = "#22303c"  # dark on white: the file is not part of a page whose colours it could take
_COLORS: Any = {"text.color": _TEXT, "axes.labelcolor": _TEXT, "xtick.color": _TEXT, "ytick.color": _TEXT}


def dot_plot(comparison: Comparison) -> str:
    """An SVG document. The best of each panel is orange, the bars are one standard deviation each way."""
    rows = [row for row in comparison.rows if row.estimates]
    with rc_context({**STYLE, **_COLORS}):
        size = (1.6 + 2.6 * len(comparison.metrics), 0.9 + 0.34 * max(len(rows), 1))
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(f"Seen items left {'out' if comparison.exclude_seen else 'in'}", fontsize="small")
        panels = figure.subplots(1, len(comparison.metrics), sharey=True, squeeze=False)[0]
        for axes, metric in zip(panels, comparison.metrics, strict=True):
            for place, row in enumerate(rows):
                estimate = row.estimates[metric]
                spread = 0.0 if math.isnan(estimate.std) else estimate.std
                color = ORANGE if row.name in comparison.best(metric) else BLUE
                axes.errorbar(estimate.mean, place, xerr=spread, fmt="o", color=color, ms=6, capsize=3)
            axes.set(xlabel=metric.upper(), yticks=range(len(rows)), yticklabels=[row.name for row in rows])
            axes.grid(axis="x", color=GRAY, alpha=0.25, lw=0.6)
            axes.margins(x=0.1, y=0.15)
        panels[0].invert_yaxis()
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
        return buffer.getvalue()
