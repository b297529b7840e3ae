"""Random words by their position in a stream: any rank can draw its part alone.

A counter-based generator (Philox; Salmon et al. 2011) jumps straight to a position.
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
    generator.advance(int(first) // WORDS_PER_COUNTER)  # numpy integers overflow in there
    return generator.random_raw(count)


def whole_counters(words: int) -> int:
    """The next multiple of `WORDS_PER_COUNTER`: what takes so many words begins where a rank can jump to."""
    return -(-words // WORDS_PER_COUNTER) * WORDS_PER_COUNTER
