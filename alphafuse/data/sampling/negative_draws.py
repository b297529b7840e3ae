"""Draws negative items by position in the global batch, so that any rank can draw its part alone.

The negatives of a target depend on seed, step and position, and not on the number of ranks.
"""

from __future__ import annotations

import numpy as np

from alphafuse.data.sampling.counter import random_rows, random_words


def shared_negatives(seed: int, step: int, count: int, num_items: int) -> np.ndarray:
    """Draw `count` items, uniform with replacement, for the whole batch of a step: int64 [count]."""
    return _below(random_words(seed, step, 0, count), num_items)


def uniform_negatives(
    seed: int, step: int, first_target: int, positives: np.ndarray, count: int, num_items: int
) -> np.ndarray:
    """Draw `count` items for each positive, uniform over all items except the positive.

    Args:
        first_target: position of the first of these targets in the global batch.
        positives: int64 [targets]; −1 where there is no target, whose negatives have no meaning.
        num_items: at least 2.

    Returns:
        int64 [targets, count].
    """
    negatives = _below(random_rows(seed, step, first_target, len(positives), count)[:, :count], num_items - 1)
    return negatives + (negatives >= positives[:, None])


def batch_negatives(seed: int, step: int, count: int, targets: np.ndarray) -> np.ndarray:
    """Draw `count` of the targets [targets] of a batch without replacement; all of them if there are fewer."""
    if len(targets) <= count:
        return targets
    generator = np.random.Generator(np.random.Philox(key=[seed, step]))
    return targets[generator.choice(len(targets), count, replace=False)]


def _below(words: np.ndarray, bound: int) -> np.ndarray:
    """Turn words into numbers in [0, bound): int64, of the same shape."""
    # The bias of the remainder is below bound / 2^64.
    return (words % np.uint64(bound)).astype(np.int64)
