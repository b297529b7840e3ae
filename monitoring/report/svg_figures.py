"""Figures of the report as inline SVG. Their text has the colour of the page's text, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monitoring.presentation.palette import BLUE, GRAY, ORANGE

# Placeholder for currentColor, the colour of the page's text, which matplotlib does not know.
_TEXT = "#010203"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "alphafuse",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _TEXT,
    "axes.edgecolor": GRAY,
    "axes.labelcolor": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
}


def training_curves(history: Sequence[Mapping[str, Any]], monitor: str, best_epoch: int) -> str:
    """Training loss and the monitored validation metric over the epochs, the best one marked.

    Args:
        history: `epoch`, `loss` and `validation` (metrics, or None) per epoch, from the `model` artefact.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        marker = "o" if len(history) < 12 else ""
        left.plot([e["epoch"] for e in history], [e["loss"] for e in history], color=BLUE, marker=marker, ms=4)
        left.set(xlabel="epoch", ylabel="training loss")
        validated = [entry for entry in history if entry["validation"]]
        epochs = [entry["epoch"] for entry in validated]
        values = [entry["validation"][monitor] for entry in validated]
        right.plot(epochs, values, color=ORANGE, marker=marker, ms=4)
        right.set(xlabel="epoch", ylabel=f"validation {monitor.upper()}")
        if best_epoch in epochs:
            best = values[epochs.index(best_epoch)]
            right.plot([best_epoch], [best], "o", color=ORANGE, ms=8)
            right.annotate(f"{best:.4f}", (best_epoch, best), (0, -16), textcoords="offset points", ha="center")
        for axes in (left, right):
            axes.xaxis.get_major_locator().set_params(integer=True)
            quiet_grid(axes)
        return _svg(figure, "Training loss and validation metric over the epochs")


def singular_spectrum(eigenvalues: np.ndarray, row_dim: int, hidden_dim: int) -> str:
    """Eigenvalues of the covariance, descending, by region: row space, null space, and the directions left out.

    Args:
        eigenvalues: [embedding_dim].
    """
    order = np.arange(1, len(eigenvalues) + 1)
    regions = (
        (0, row_dim, BLUE, "row space, frozen"),
        (row_dim, hidden_dim, ORANGE, "null space, IDs learn here"),
        (hidden_dim, len(eigenvalues), GRAY, "left out"),
    )
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 2.9), layout="constrained")
        axes = figure.subplots()
        shown = np.maximum(eigenvalues, eigenvalues[0] * 1e-5)
        for start, stop, color, label in regions:
            if start < stop:
                axes.fill_between(order[start:stop], shown[start:stop], shown.min(), color=color, alpha=0.25, lw=0)
                axes.plot(order[start:stop], shown[start:stop], color=color, label=f"{label} ({stop - start})")
        axes.set(xlabel="direction", ylabel="eigenvalue", yscale="log", xlim=(1, max(2, len(order))))
        axes.legend(frameon=False)
        quiet_grid(axes)
        return _svg(figure, "Eigenvalues of the embeddings' covariance with the cut between row space and null space")


def quiet_grid(axes: Axes) -> None:
    axes.grid(axis="y", color=GRAY, alpha=0.25, lw=0.6)


def _svg(figure: Figure, label: str) -> str:
    """The figure as an SVG element that scales with the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_TEXT, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    opening = re.sub(r' (width|height)="[^"]*"', "", text[: text.index(">")])
    return f'{opening} role="img" aria-label="{label}"{text[text.index(">") :]}'
