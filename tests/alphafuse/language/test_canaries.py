"""The comparison of engines by the texts that all of them embed first."""

from __future__ import annotations

import numpy as np
import pytest

from alphafuse.errors import ResourceError
from alphafuse.language.canaries import LARGEST_DRIFT, TEXTS, require_same_engine


def _turned(vectors: np.ndarray, drift: float) -> np.ndarray:
    """Vectors of unit length, of which the last one is turned until 1 − cosine is `drift`."""
    turned = vectors.copy()
    aside = np.roll(vectors[-1], 1)
    aside -= (aside @ vectors[-1]) * vectors[-1]
    turned[-1] = (1 - drift) * vectors[-1] + np.sqrt(1 - (1 - drift) ** 2) * aside / np.linalg.norm(aside)
    return turned


@pytest.fixture
def vectors() -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal((64, 16))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def test_the_texts_are_64_different_ones_of_every_length() -> None:
    assert [len(text.split()) for text in TEXTS] == list(range(1, 65))
    assert len(set(TEXTS)) == 64


def test_rounding_passes_and_a_turned_vector_does_not(vectors: np.ndarray) -> None:
    require_same_engine(vectors, vectors, "here")
    require_same_engine(_turned(vectors, 0.9 * LARGEST_DRIFT), vectors, "here")
    with pytest.raises(ResourceError, match=r"engine on node-7 computes other vectors .* up to 0\.0011, more than"):
        require_same_engine(_turned(vectors, 1.1 * LARGEST_DRIFT), vectors, "node-7")
    with pytest.raises(ResourceError, match="8 components, where they have 16"):
        require_same_engine(vectors[:, :8], vectors, "here")


def test_a_text_that_all_engines_refuse_is_no_drift_and_one_that_some_refuse_is(vectors: np.ndarray) -> None:
    refused = vectors.copy()
    refused[5] = 0
    require_same_engine(refused, refused, "here")
    for first, second in ((refused, vectors), (vectors, refused)):
        with pytest.raises(ResourceError, match="up to 1, more than"):
            require_same_engine(first, second, "here")
