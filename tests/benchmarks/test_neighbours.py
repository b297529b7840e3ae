"""The neighbours that an item keeps after training."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.neighbours import kept, nearest


def test_nearest_equals_a_full_sort_of_the_cosines() -> None:
    vectors = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    own = np.array([0, 7, 49])
    exact = vectors.double().numpy()
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    cosines = exact[own] @ exact.T
    cosines[np.arange(3), own] = -2
    tiles = ((first, vectors[first : first + 16]) for first in range(0, 50, 16))
    assert nearest(vectors[own], own, tiles, 4).tolist() == np.argsort(-cosines, axis=1)[:, :4].tolist()


def test_an_item_is_no_neighbour_of_itself_among_copies() -> None:
    vectors = torch.ones(6, 3)  # of equal neighbours the first ones count, without the last item
    assert nearest(vectors[[0, 5]], np.array([0, 5]), iter([(0, vectors)]), 2).tolist() == [[1, 2], [0, 1]]


def test_kept_counts_in_any_order() -> None:
    before, after = np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.array([[4, 9, 1, 0], [8, 7, 6, 5]])
    assert kept(before, after).tolist() == [0.5, 1.0]
