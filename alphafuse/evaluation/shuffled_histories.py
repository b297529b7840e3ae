"""Histories in random order: how much worse a model ranks by them is how much of its result is order."""

from __future__ import annotations

import numpy as np

from alphafuse.data.sampling.counter import random_words, whole_counters

SEED = 0
"""One for all models, so that they are compared on the same orders."""


def shuffled(histories: np.ndarray, first: int) -> np.ndarray:
    """Put the items of each history in random order; padding stays at the end.

    Args:
        histories: int64 [queries, length], padded with −1 at the end.
        first: number of the first query among all of an evaluation, on which, with its length, an order depends alone:
            batches and ranks change nothing.
    """
    queries, length = histories.shape
    words = whole_counters(length)
    drawn = random_words(SEED, 0, first * words, queries * words).reshape(queries, words)[:, :length]
    # Words lose a bit, so that no word is as large as the one that keeps padding in its place.
    drawn = np.where(histories < 0, np.uint64(1) << np.uint64(63), drawn >> np.uint64(1))
    return np.take_along_axis(histories, np.argsort(drawn, axis=1, kind="stable"), axis=1)
