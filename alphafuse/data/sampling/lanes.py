"""Divides the samples that are shuffled together into lanes, and puts them in an order that ranks can follow apart.

The samples lie on a line, which is cut into `LANES` lanes of equal length, whatever the number of ranks. A rank has
lanes that lie side by side. Sample j of lane g, which has n_g samples, comes at the time (j + u_g) / n_g with u_g in
[0, 1); samples of the same time come in the order of their lanes. Lanes that lie side by side have offsets u_g spread
evenly over [0, 1), so that every stretch of the order takes about equally many samples from each rank. How far each
lane is at some place of the order follows from the number of samples alone. Knows nothing of users, files or batches.
"""

from __future__ import annotations

import numpy as np

from alphafuse.data.sequences import ranges

LANES = 960
"""Number of lanes. It has many divisors: up to 256 ranks, no rank has more than 1.13 times its share."""
ORDER = f"{LANES} lanes"
"""Name of the order, on which the position of an unfinished training depends."""
GOLDEN_SECTION = (np.sqrt(5) - 1) / 2


def lanes_of(rank: int, world_size: int) -> slice:
    """The lanes of one rank."""
    return slice(rank * LANES // world_size, (rank + 1) * LANES // world_size)


class LaneOrder:
    """The order of `samples` samples, by their lanes.

    Args:
        shift: added to all offsets, modulo 1: which lanes come first.

    Attributes:
        samples: as given.
        starts: int64 [LANES + 1], where the lanes begin on the line, and its end.
    """

    def __init__(self, samples: int, shift: float) -> None:
        self.samples = samples
        self.starts = np.arange(LANES + 1) * samples // LANES
        self._sizes = np.diff(self.starts)
        # Multiples of the golden section, modulo 1, are evenly spread from any one of them on.
        self._offsets = (np.arange(LANES) * GOLDEN_SECTION + shift) % 1

    def cursors(self, place: int) -> np.ndarray:
        """Number of samples of each lane among the first `place` ones of the order: int64 [LANES]."""
        # ⌈τ·n_g − u_g⌉ samples of lane g come before the time τ: of all lanes, more than τ·samples − Σu_g, by less than
        # LANES. So many are surely among the first, and so many may be.
        offsets = self._offsets.sum()
        sure = self._before((place + offsets - LANES - 1) / self.samples)
        left = self._before((place + offsets + 1) / self.samples) - sure
        lanes = np.repeat(np.arange(LANES), left)
        times = (ranges(sure, left) + self._offsets[lanes]) / self._sizes[lanes]
        first = np.argsort(times, kind="stable")[: place - sure.sum()]
        return sure + np.bincount(lanes[first], minlength=LANES)

    def _before(self, time: float) -> np.ndarray:
        """Number of samples of each lane that come before a time: int64 [LANES]."""
        return np.clip(np.ceil(time * self._sizes - self._offsets), 0, self._sizes).astype(np.int64)
