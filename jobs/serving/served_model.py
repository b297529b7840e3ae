"""A loaded model that has shown that it answers. One object computes an answer from its start to its end, so that no
answer mixes two models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alphafuse.errors import AlphafuseError, WorkspaceError
from alphafuse.evaluation.recommendations import Recommended
from alphafuse.serving.export_files import Export
from alphafuse.serving.recommender import Recommender, Search
from jobs.serving.model_source import Location, located

PROBES = 8
"""Number of histories that a model must answer before it serves."""
PROBE_ITEMS = 10
"""Longest list that is asked for in a probe."""


@dataclass(frozen=True)
class Asked:
    """One request for recommendations."""

    history: Sequence[str]
    k: int
    exclude_seen: bool


@dataclass(frozen=True)
class Answer:
    """The answer to one request.

    Attributes:
        items: best first.
        unknown_items: item ids of the request that the catalog does not have, in their order.
        model: the model that computed all of it.
    """

    items: list[Recommended]
    unknown_items: list[str]
    model: Location


class ServedModel:
    """A recommender with its name. Raises where the model is damaged or refuses a probe.

    Args:
        location: what to load.
        search: see `alphafuse.serving.recommender.load`.

    Raises:
        MissingPackageError: a package is not installed.
        WorkspaceError: the export is damaged, is not the one that was asked for, or does not answer probes.
    """

    def __init__(self, location: Location, search: Search) -> None:
        export = Export.find(location.export)
        self.location = location
        self._recommender = Recommender(export, search)
        # After loading: an export that was made again meanwhile may have given files of two models.
        if located(export).content != location.content:
            raise WorkspaceError(
                f"{location.export} is not the export of {location.version} any more: it has been made again"
            )
        self._probe()

    @property
    def num_items(self) -> int:
        """Number of items in the catalog."""
        return self._recommender.num_items

    def recommend(self, batch: Sequence[Asked]) -> list[Answer]:
        """Answer requests together; each list is the one that its request would get alone."""
        known = [[item for item in asked.history if item in self._recommender] for asked in batch]
        lists: list[list[Recommended]] = [[] for _ in batch]
        for exclude_seen in {asked.exclude_seen for asked in batch}:
            rows = [row for row, asked in enumerate(batch) if asked.exclude_seen == exclude_seen and known[row]]
            if rows:
                longest = max(batch[row].k for row in rows)
                found = self._recommender.recommend([known[row] for row in rows], longest, exclude_seen)
                for row, items in zip(rows, found, strict=True):
                    lists[row] = items[: batch[row].k]
        return [
            Answer(items, [item for item in asked.history if item not in self._recommender], self.location)
            for asked, items in zip(batch, lists, strict=True)
        ]

    def similar(self, item_id: str, k: int) -> Answer:
        """The items whose vectors are most similar to that of an item; none where the catalog does not have it."""
        if item_id not in self._recommender:
            return Answer([], [item_id], self.location)
        return Answer(self._recommender.similar_items([item_id], k)[0], [], self.location)

    def _probe(self) -> None:
        """Ask for lists after a few histories.

        Raises:
            WorkspaceError: a list is empty, or a score is not finite.
        """
        ids, total = self._recommender.item_ids, self.num_items
        length = min(self._recommender.history_length, total - 1)
        starts = np.linspace(0, total - 1, PROBES).astype(int)
        histories = [
            [ids[int(start + place) % total].as_py() for place in range(1 + number * (length - 1) // (PROBES - 1))]
            for number, start in enumerate(starts)
        ]
        try:
            lists = self._recommender.recommend(histories, min(PROBE_ITEMS, total))
        except AlphafuseError as error:
            raise WorkspaceError(f"{self.location.export} refuses a probe: {error}") from error
        for history, items in zip(histories, lists, strict=True):
            if not items or not all(math.isfinite(item.score) for item in items):
                fault = "a score that is not finite" if items else "an empty list"
                raise WorkspaceError(
                    f"{self.location.export} gives {fault} after a history of {len(history)} items: it is not served"
                )
