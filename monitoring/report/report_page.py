"""Renders the report: one HTML page that loads nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined

from monitoring.presentation.formats import duration
from monitoring.report.run_facts import Content
from monitoring.report.svg_figures import singular_spectrum, training_curves


def render(content: Content, environment: Mapping[str, str]) -> str:
    """The page as HTML. All text from the data is escaped; the figures are our own SVG.

    Not for several threads at once: matplotlib's settings belong to the process.

    Args:
        environment: machine and software that made the run, by name; the section is left out where there are none.
    """
    templates = Environment(
        loader=PackageLoader("monitoring.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["metric"] = lambda value: "–" if value is None else f"{value:.4f}"
    templates.filters["duration"] = lambda seconds: "not run" if seconds is None else duration(seconds)
    slowest = max((timing.seconds or 0.0 for timing in content.timings), default=0.0)
    return templates.get_template("report.html").render(
        page=content,
        environment=environment,
        slowest=slowest,
        training_figure=_training_figure(content),
        spectrum_figure=_spectrum_figure(content),
    )


def style() -> str:
    """The style sheet that the report shares with the dashboard."""
    return (resources.files("monitoring.report") / "templates" / "style.css").read_text()


def _training_figure(content: Content) -> str | None:
    if content.training is None:
        return None
    return training_curves(content.training["history"], content.monitor, content.training["best"]["epoch"])


def _spectrum_figure(content: Content) -> str | None:
    if content.spectrum is None or content.nullspace is None:
        return None
    return singular_spectrum(content.spectrum, content.nullspace["row_dim"], content.nullspace["hidden_dim"])
