"""What diffusion draws for each target, by position in the global batch: any rank can draw its part alone.

It depends on seed, step and position, and not on how many ranks share the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alphafuse.data.sampling.counter import random_words, whole_counters


@dataclass(frozen=True)
class TargetNoise:
    """What was drawn for some targets.

    Attributes:
        timesteps: int64 [targets], uniform over [0, T).
        dropped: bool [targets], whether the condition is left out.
        noise: float32 [targets, dim], standard normal.
    """

    timesteps: np.ndarray
    dropped: np.ndarray
    noise: np.ndarray


def target_noise(
    seed: int, step: int, first_slot: int, chosen: np.ndarray, dim: int, timesteps: int, drop_rate: float
) -> TargetNoise:
    """Draws for the chosen ones of consecutive slots, each of which has the same number of random words.

    Args:
        first_slot: position of the first slot in the global batch.
        chosen: bool [slots], which of them hold a target.
    """
    width = whole_counters(2 + -(-dim // 2))
    words = random_words(seed, step, first_slot * width, len(chosen) * width).reshape(len(chosen), width)[chosen]
    drawn_timesteps = (words[:, 0] % np.uint64(timesteps)).astype(np.int64)
    dropped = (words[:, 1] >> np.uint64(11)) * 2.0**-53 < drop_rate
    return TargetNoise(drawn_timesteps, dropped, _normal(words[:, 2:])[:, :dim])


def _normal(words: np.ndarray) -> np.ndarray:
    """Two standard normal numbers for each word (Box & Muller 1958): float32 [rows, 2 · words]."""
    high, low = ((half * np.float32(2**-32)) for half in _halves(words))
    radius, angle = np.sqrt(-2 * np.log(high)), np.float32(2 * np.pi) * low
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _halves(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upper half of each word plus one, which has a logarithm, and the lower half: float32, up to 2³²."""
    high, low = words >> np.uint64(32), words & np.uint64(2**32 - 1)
    return high.astype(np.float32) + np.float32(1), low.astype(np.float32)
