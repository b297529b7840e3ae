"""The knowledge that replicas of the web service have of each other, in an actor that lives as long as the service.

Replicas load another model one after the other, so that at most one of them holds two models, and one that starts when
the wanted model is refused takes the model of the others.
"""

from __future__ import annotations

import time
from typing import Any

import ray

from jobs.serving.model_source import Location
from monitoring.metrics.serving_recorder import merged_page

NAME = "fleet"
GONE_SECONDS = 30.0
"""A replica that has not reported for this long does not run any more."""
AGAIN_SECONDS = 60.0
"""Seconds after which a model that was refused is tried again: its files may have been on their way."""


class Fleet:
    """The shared knowledge. Every method is called by replicas, which are named by their ids."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[float, Any]] = {}
        self._turn: str | None = None
        self._refused: dict[Location, float] = {}
        self._served: Location | None = None

    def report(self, replica: str, families: Any, location: Location) -> None:
        """Take the latest metrics of a replica, and the model that it serves."""
        self._reports[replica] = time.monotonic(), families
        self._served = location

    def page(self) -> bytes:
        """The metrics of all living replicas, in the format of Prometheus."""
        return merged_page({replica: self._reports[replica][1] for replica in self._living()})

    def served(self) -> Location | None:
        """A model that a replica has served; None if none has yet."""
        return self._served

    def take_turn(self, replica: str, wanted: Location) -> bool:
        """Let a replica load a model; False while another one does, or where it was refused a moment ago."""
        if time.monotonic() - self._refused.get(wanted, -AGAIN_SECONDS) < AGAIN_SECONDS:
            return False
        if self._turn not in (None, replica) and self._turn in self._living():
            return False
        self._turn = replica
        return True

    def end_turn(self, replica: str, wanted: Location, refused: bool) -> None:
        """Let the next replica load; where the model was refused, none does for a while."""
        if self._turn == replica:
            self._turn = None
        if refused:
            self._refused[wanted] = time.monotonic()

    def _living(self) -> list[str]:
        now = time.monotonic()
        self._reports = {name: each for name, each in self._reports.items() if now - each[0] < GONE_SECONDS}
        return list(self._reports)


FleetActor = ray.remote(Fleet)
