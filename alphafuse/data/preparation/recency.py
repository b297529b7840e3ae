"""Finds the time from which interactions count as recent, without the times of all interactions in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alphafuse.config import SplitConfig
from alphafuse.data.preparation.scratch import read_columns
from alphafuse.storage.filesystem.folder import Folder

RECENT_SHARE = 0.1
"""Share of the interactions, the latest ones before the end of training, that is recent."""
POINTS = 1024
"""Times that stand for those of a file of grouped users: an error of a thousandth of the file at most."""


@dataclass(frozen=True)
class TimeSketch:
    """Some of the times of many interactions.

    Attributes:
        count: number of the interactions that have a time.
        points: [up to `POINTS`], ascending, as many interactions apart.
    """

    count: int
    points: np.ndarray


def sketch_times(scratch: Folder, file: str) -> TimeSketch:
    """Sketch the times in a file of grouped users."""
    times = read_columns(scratch, file, ["times"])["times"].combine_chunks().flatten().to_numpy()
    times = np.sort(times[~np.isnan(times)])
    if len(times) <= POINTS:
        return TimeSketch(len(times), times)
    middles = (np.arange(POINTS) + 0.5) / POINTS * len(times)
    return TimeSketch(len(times), times[middles.astype(np.int64)])


def recent_cut(sketches: Sequence[TimeSketch], split: SplitConfig) -> float | None:
    """The time from which interactions are recent; None where none has a time.

    The temporal split trains on what is before its first cut, the others on (nearly) the whole log.
    """
    sketches = [sketch for sketch in sketches if sketch.count]
    if not sketches:
        return None
    trains = split.ratios[0] / sum(split.ratios) if split.kind == "temporal" else 1.0
    points = np.concatenate([sketch.points for sketch in sketches])
    weights = np.concatenate([np.full(len(sketch.points), sketch.count / len(sketch.points)) for sketch in sketches])
    order = np.argsort(points, kind="stable")
    before = np.cumsum(weights[order])
    place = np.searchsorted(before, trains * (1 - RECENT_SHARE) * before[-1], side="right")
    return float(points[order][min(place, len(points) - 1)])
