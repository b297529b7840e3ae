"""Renders the report: one HTML file that needs nothing else."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from monitoring.report.content import Content


def render(content: Content, environment: dict[str, str]) -> str:
    """The page. All text from the data is escaped; the figures are our own SVG."""
    templates = Environment(
        loader=PackageLoader("monitoring.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["metric"] = lambda value: "–" if value is None else f"{value:.4f}"
    templates.filters["duration"] = _duration
    slowest = max((timing.seconds or 0.0 for timing in content.timings), default=0.0)
    return templates.get_template("page.html").render(page=content, environment=environment, slowest=slowest)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not run"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
