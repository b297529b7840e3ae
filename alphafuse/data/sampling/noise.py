"""Draws the random numbers of diffusion by position in the global batch, so that any rank can draw its part alone.

The numbers of a target depend on seed, step and position, and not on the number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alphafuse.data.sampling.counter import random_rows, uniform


@dataclass(frozen=True)
class TargetNoise:
    """Random numbers of some targets.

    Attributes:
        timesteps: int64 [targets], uniform over [0, T).
        dropped: bool [targets], True where the condition is left out.
        noise: float32 [targets, dim], standard normal.
    """

    timesteps: np.ndarray
    dropped: np.ndarray
    noise: np.ndarray


def target_noise(
    seed: int, step: int, first_slot: int, chosen: np.ndarray, dim: int, timesteps: int, drop_rate: float
) -> TargetNoise:
    """Draw for the chosen ones of consecutive slots; each slot takes the same number of random words.

    Args:
        first_slot: position of the first slot in the global batch.
        chosen: bool [slots], True for slots that hold a target.
    """
    words = random_rows(seed, step, first_slot, len(chosen), 2 + -(-dim // 2))[chosen]
    drawn_timesteps = (words[:, 0] % np.uint64(timesteps)).astype(np.int64)
    dropped = uniform(words[:, 1]) < drop_rate
    return TargetNoise(drawn_timesteps, dropped, _normal(words[:, 2:])[:, :dim])


def _normal(words: np.ndarray) -> np.ndarray:
    """Turn each word into two standard normal numbers (Box & Muller 1958): float32 [rows, 2 · words]."""
    high, low = ((half * np.float32(2**-32)) for half in _halves(words))
    radius, angle = np.sqrt(-2 * np.log(high)), np.float32(2 * np.pi) * low
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _halves(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper half of each word plus one, so that it has a logarithm, and lower half: float32, up to 2³²."""
    high, low = words >> np.uint64(32), words & np.uint64(2**32 - 1)
    return high.astype(np.float32) + np.float32(1), low.astype(np.float32)
