"""Random words that are addressed by their position in a stream, so that any rank can draw its part alone.

The generator is counter-based (Philox; Salmon et al. 2011): it jumps to a position without drawing what comes before.
"""

from __future__ import annotations

import numpy as np

WORDS_PER_COUNTER = 4


def random_words(seed: int, step: int, first: int, count: int) -> np.ndarray:
    """`count` words from position `first` of the stream of (seed, step): uint64 [count].

    Args:
        first: a multiple of `WORDS_PER_COUNTER`.
    """
    generator = np.random.Philox(key=[seed, step])
    generator.advance(int(first) // WORDS_PER_COUNTER)  # int: numpy integers overflow inside of `advance`
    return generator.random_raw(count)


def random_rows(seed: int, step: int, first_row: int, rows: int, width: int) -> np.ndarray:
    """Words of consecutive rows of the stream of (seed, step), uint64 [rows, `width` or a few more]: a row has the same
    ones whichever rows are drawn with it."""
    taken = whole_counters(width)
    return random_words(seed, step, first_row * taken, rows * taken).reshape(rows, taken)


def uniform(words: np.ndarray) -> np.ndarray:
    """Turn words into numbers uniform over [0, 1): float64, of the same shape."""
    return (words >> np.uint64(11)) * 2.0**-53


def whole_counters(words: int) -> int:
    """Round a number of words up to a multiple of `WORDS_PER_COUNTER`, so that the next draw starts at a counter."""
    return -(-words // WORDS_PER_COUNTER) * WORDS_PER_COUNTER
