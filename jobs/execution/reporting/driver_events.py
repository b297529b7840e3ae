"""Everything that listens to a run, in the process that drives it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alphafuse.config import Config
from alphafuse.events import FanOut, Listener
from alphafuse.storage.workspace import Workspace
from jobs.execution.reporting.run_metrics import run_metrics
from monitoring.tracking.tracker import tracking_tools


@contextmanager
def driver_listener(config: Config, workspace: Workspace, history: Listener, show: Listener) -> Iterator[Listener]:
    """The listener that the stages of a run report to: its history, the console, the metrics with the list of
    processes, and the tracking tools. To be used on a connection to Ray.

    Args:
        show: the console, or another listener; it and the history get the warnings of the others.
    """
    shown = FanOut(history, show)
    with run_metrics(config, workspace, shown) as metrics, tracking_tools(config, workspace, shown) as tools:
        yield FanOut(shown, metrics, tools)
