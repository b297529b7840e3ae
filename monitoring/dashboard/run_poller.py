"""Reads workspaces again and again in threads, so that pages take the latest state and never wait for storage."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from alphafuse.registry.aliases import Aliases
from alphafuse.registry.version import Version
from alphafuse.registry.version_registry import Registry
from alphafuse.storage.filesystem.folder import Folder, resolve
from alphafuse.storage.ownership import read_beat
from alphafuse.tuning.trials import Tuning, read_tuning
from monitoring.run_log.finding import Found, find_workspaces
from monitoring.run_log.heartbeat import LOST_SECONDS
from monitoring.run_log.reader import Run, RunReader

T = TypeVar("T")
LOCAL_SECONDS, REMOTE_SECONDS = 2.0, 10.0
"""Seconds between two reads of a place."""
DISCOVER_READS = 5
"""New workspaces are looked for at every n-th read."""


@dataclass(frozen=True)
class Place:
    """A folder or URI that holds workspaces, and the outcome of reading it.

    Attributes:
        read: time of the last complete read, seconds since the epoch; None before the first one.
        problem: why the place, or a workspace in it, cannot be read; empty where all can.
    """

    name: str
    read: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class FoundTuning:
    """A tuning, as it was read last.

    Attributes:
        key: name of the tuning, unique on the dashboard.
        uri: URI of its folder.
        tuning: its trials.
        lives: whether the process that tunes has given a sign of life in the last minute.
    """

    key: str
    uri: str
    tuning: Tuning
    lives: bool


@dataclass(frozen=True)
class FoundRegistry:
    """A registry of models, as it was read last.

    Attributes:
        key: name of the registry, unique on the dashboard.
        versions: all versions, removed ones included, oldest first.
    """

    key: str
    aliases: Aliases
    versions: list[Version]


class RunPoller:
    """Reads every place in a thread of its own until it is closed, so that a place that hangs delays no other.

    Args:
        places: folders or URIs, as the user named them.
        seconds: time between two reads; None for `LOCAL_SECONDS` or `REMOTE_SECONDS`.
    """

    def __init__(self, places: Sequence[str], seconds: float | None = None) -> None:
        distinct: dict[str, str] = {}
        for place in places:
            distinct.setdefault(_root(place), place)
        self.places = {place: Place(place) for place in distinct.values()}
        self._seconds = seconds
        self._runs: dict[str, dict[str, Run]] = {place: {} for place in self.places}
        self._tunings: dict[str, dict[str, FoundTuning]] = {place: {} for place in self.places}
        self._registries: dict[str, dict[str, FoundRegistry]] = {place: {} for place in self.places}
        self._over = threading.Event()
        for place in self.places:
            threading.Thread(target=self._poll, args=(place,), daemon=True).start()

    def close(self) -> None:
        self._over.set()

    def runs(self) -> list[Run]:
        """All runs in their latest known state, in the order of their names."""
        return [run for place in self.places for _, run in sorted(self._runs[place].items())]

    def tunings(self) -> list[FoundTuning]:
        """All tunings in their latest known state, in the order of their names."""
        return [tuning for place in self.places for _, tuning in sorted(self._tunings[place].items())]

    def registries(self) -> list[FoundRegistry]:
        """All registries in their latest known state, in the order of their names."""
        return [registry for place in self.places for _, registry in sorted(self._registries[place].items())]

    def run(self, key: str) -> Run | None:
        return next((run for run in self.runs() if run.key == key), None)

    def _poll(self, place: str) -> None:
        readers: dict[str, RunReader] = {}
        seconds = self._seconds or (REMOTE_SECONDS if "://" in place else LOCAL_SECONDS)
        reads, found = 0, Found([], [])
        while not self._over.is_set():
            try:
                if reads % DISCOVER_READS == 0:
                    found = find_workspaces(place)
                    readers = {
                        uri: readers.get(uri) or RunReader(self._key(place, uri), uri) for uri in found.workspaces
                    }
                problems = [
                    *found.problems,
                    *self._read(place, readers),
                    *self._read_each(place, found.tunings, self._tunings, _tuning),
                    *self._read_each(place, found.registries, self._registries, _registry),
                ]
                self.places[place] = Place(place, time.time(), "; ".join(problems))
            except Exception as error:  # whatever a storage raises is shown on the page, and the read is tried again
                self.places[place] = Place(place, self.places[place].read, f"{type(error).__name__}: {error}")
            reads += 1
            self._over.wait(seconds)

    def _read(self, place: str, readers: dict[str, RunReader]) -> list[str]:
        """Read every run of a place; returns the problems. A run that cannot be read stops no other."""
        problems = []
        runs = {uri: run for uri, run in self._runs[place].items() if uri in readers}
        for uri, reader in readers.items():
            try:
                runs[uri] = reader.read()
            except Exception as error:  # as above
                problem = f"{type(error).__name__}: {error}"
                problems.append(f"{reader.run.key}: {problem}")
                runs[uri] = dataclasses.replace(reader.run, problem=problem)
            self._runs[place] = dict(runs)
        self._runs[place] = runs
        return problems

    def _read_each(
        self, place: str, uris: Sequence[str], known: dict[str, dict[str, T]], read: Callable[[str, str], T | None]
    ) -> list[str]:
        """Read what is at each of the URIs of a place, by key and URI; returns the problems. What was read before stays
        shown."""
        problems, found = [], {uri: each for uri, each in known[place].items() if uri in uris}
        for uri in uris:
            key = self._key(place, uri)
            try:
                if (each := read(key, uri)) is not None:
                    found[uri] = each
            except Exception as error:  # as above
                problems.append(f"{key}: {type(error).__name__}: {error}")
        known[place] = found
        return problems

    def _key(self, place: str, uri: str) -> str:
        """The name of a run: its path within the place. Where there are several places, the place's name stands before
        it, or the place's whole path where two places have the same name."""
        root = _root(place)
        name = _name(root)
        inside = uri.removeprefix(root).strip("/")
        if len(self.places) == 1:
            return inside or name
        alike = sum(_name(_root(other)) == name for other in self.places)
        return "/".join(part for part in (name if alike == 1 else root, inside) if part)


def _tuning(key: str, uri: str) -> FoundTuning | None:
    tuning = read_tuning(Folder(uri))
    return None if tuning is None else FoundTuning(key, uri, tuning, _lives(uri))


def _registry(key: str, uri: str) -> FoundRegistry:
    registry = Registry(uri)
    return FoundRegistry(key, registry.aliases(), registry.versions())


def _lives(uri: str) -> bool:
    """Tell whether the owner of a folder lives, by its heartbeat."""
    _, beat = read_beat(Folder(uri))
    return beat is not None and not (beat.ended or beat.is_dead) and time.time() - beat.time < LOST_SECONDS


def _root(place: str) -> str:
    return resolve(place).rstrip("/")


def _name(root: str) -> str:
    return root.rsplit("/", 1)[-1]
