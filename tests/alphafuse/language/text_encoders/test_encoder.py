"""One bad text costs its own vector, never its batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from alphafuse.language.text_encoders.encoder import EMPTY, Computed, encode_texts, failures_by_category, usable_vectors
from alphafuse.language.text_encoders.pieces import CutBatch, Piece, uncut


class LengthEncoder:
    """Gives [length of the text, 1]; refuses batches with a text that begins with "bad"; records calls."""

    dim = 2

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def identity(self) -> dict[str, Any]:
        return {}

    def start(self) -> None: ...

    def cut(self, texts: Sequence[str]) -> CutBatch:
        return uncut(texts)

    def encode(self, pieces: Sequence[Piece]) -> Computed:
        texts = [piece.text for piece in pieces]
        self.calls.append(texts)
        bad = [text for text in texts if text.startswith("bad")]
        if bad:
            raise ValueError(f"{bad[0]} is refused")
        values = [np.nan if text == "nan" else len(text) for text in texts]
        return Computed(np.array([[value, 1] for value in values], np.float32), 0)


def test_each_text_gets_its_vector_or_a_reason() -> None:
    texts = ["a", None, "bad 1", "four", " \t", "", "nan", "bad 2", "seven!!"]
    encoded = encode_texts(LengthEncoder(), texts, normalize=False, dtype="float32")
    assert encoded.failures == {
        1: EMPTY, 4: EMPTY, 5: EMPTY, 2: "refused: bad 1 is refused", 7: "refused: bad 2 is refused",
        6: "not finite: the vector has NaN or infinite values in float32",
    }  # fmt: skip
    expected = np.zeros((9, 2), np.float32)
    expected[[0, 3, 8]] = [[1, 1], [4, 1], [7, 1]]
    np.testing.assert_array_equal(encoded.vectors, expected)
    assert failures_by_category(encoded.failures) == {"refused": 2, "not finite": 1}


def test_a_batch_without_any_content_reaches_no_engine() -> None:
    encoder = LengthEncoder()
    encoded = encode_texts(encoder, ["", None], normalize=True, dtype="float16")
    assert encoder.calls == []
    assert (encoded.vectors.shape, encoded.vectors.dtype) == ((2, 2), np.float16)


def test_a_refused_text_is_found_by_halving() -> None:
    encoder = LengthEncoder()
    texts = [*(f"text {number}" for number in range(63)), "bad"]
    encoded = encode_texts(encoder, texts, normalize=True, dtype="float32")
    assert len(encoder.calls) == 1 + 2 * 6
    assert encoded.retries == 2 * 6
    good = [text for call in encoder.calls if "bad" not in call for text in call]
    assert len(good) == len(set(good)) == 63


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_vectors_are_scaled_in_float32_and_stored(dtype: str) -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 16)) * 1e5  # beyond float16, until it is scaled
    usable = usable_vectors(vectors, normalize=True, dtype=dtype)
    assert usable.vectors.dtype == dtype
    assert usable.failures == {}
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(usable.vectors, expected, atol=5e-4 if dtype == "float16" else 1e-6)


def test_vectors_that_are_not_finite_where_they_are_stored_are_failures() -> None:
    vectors = np.array([[1, 2], [np.nan, 1], [np.inf, 1], [1e5, 1], [0, 0]])
    stored = usable_vectors(vectors, normalize=False, dtype="float16")
    assert sorted(stored.failures) == [1, 2, 3]
    assert all(reason.startswith("not finite: ") for reason in stored.failures.values())
    scaled = usable_vectors(vectors, normalize=True, dtype="float16")
    assert sorted(scaled.failures) == [1, 2, 4]
    assert scaled.failures[4].startswith("zero vector: ")
    for usable in (stored, scaled):
        assert not usable.vectors[list(usable.failures)].any()
        assert np.isfinite(usable.vectors).all()
