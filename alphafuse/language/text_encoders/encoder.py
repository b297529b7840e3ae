"""Defines the protocol of text encoders, and turns a batch of texts into vectors that may be stored.

Owns the rules for single texts: which texts are empty, which ones an engine refuses, and which vectors are usable.
Knows nothing of shards, jobs or where engines run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from alphafuse.language.text_encoders.pieces import CutBatch, Piece

EMPTY = "empty text"


@dataclass(frozen=True)
class Encoded:
    """Vectors of a batch, and the reasons why some texts have none.

    Attributes:
        vectors: [texts, dim]; zeros for the texts in `failures`.
        failures: position of a text → reason, "category: details" (`EMPTY` for texts without content).
        tokens: number of tokens that the engine read.
        retries: number of times that the engine was called again because it had refused a larger batch.
        cut: number of texts that were too long and lost their end.
        seconds: time that the engine computed, if it was measured (`one_engine.py`).
    """

    vectors: np.ndarray
    failures: dict[int, str] = field(default_factory=dict)
    tokens: int = 0
    retries: int = 0
    cut: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Computed:
    """Vectors of the pieces of a batch.

    Attributes:
        vectors: float32 [pieces, dim], pooled but not normalised; zeros for the pieces in `refused`.
        tokens: number of tokens that the engine read.
        refused: position of a piece → the engine's reason; retries, seconds: as in `Encoded`.
    """

    vectors: np.ndarray
    tokens: int
    refused: dict[int, str] = field(default_factory=dict)
    retries: int = 0
    seconds: float = 0.0


class TextEncoder(Protocol):
    """A language model that embeds texts. Until it is started, it is cheap to make and picklable."""

    def identity(self) -> dict[str, Any]:
        """Everything that the vectors depend on, as plain JSON values: model and checksums of its files, engine and
        version, dtype, pooling, truncation, max_length. Works before `start`.

        Raises:
            ConfigError: there is no such model.
        """
        ...

    def start(self) -> None:
        """Load the model.

        Raises:
            ResourceError: the engine does not start on this machine.
        """
        ...

    @property
    def dim(self) -> int:
        """Width of the vectors; known after `start`."""
        ...

    def cut(self, texts: Sequence[str]) -> CutBatch:
        """Put texts into the form that the model reads, beside an `encode` of other pieces."""
        ...

    def encode(self, pieces: Sequence[Piece]) -> Computed:
        """Embed at least one piece.

        Raises:
            ValueError: the engine refuses the pieces because of at least one of them.
        """
        ...


def encode_texts(encoder: TextEncoder, texts: Sequence[str | None], normalize: bool, dtype: str) -> Encoded:
    """Embed any texts. A bad text gets a reason in `failures`; it never fails the whole batch.

    Args:
        texts: may be empty strings or None.
        normalize: scale each vector to unit length, in float32.
        dtype: dtype of the stored vectors, "float16" or "float32".
    """
    content = [position for position, text in enumerate(texts) if text is not None and text.strip()]
    batch = encoder.cut([str(texts[position]) for position in content])
    computed = _encode_halving(encoder, batch.pieces)
    usable = usable_vectors(batch.merge(computed.vectors, len(content)), normalize, dtype)
    vectors = np.zeros((len(texts), encoder.dim), dtype)
    vectors[content] = usable.vectors
    failures = dict.fromkeys(sorted(set(range(len(texts))) - set(content)), EMPTY)
    refused = {batch.pieces[piece].owner: reason for piece, reason in computed.refused.items()}
    for found in (usable.failures, refused, batch.failures):  # a reason explains more than the vector that it left
        failures.update({content[position]: reason for position, reason in found.items()})
    vectors[list(failures)] = 0
    return Encoded(vectors, failures, computed.tokens, computed.retries, batch.cut, computed.seconds)


def usable_vectors(vectors: np.ndarray, normalize: bool, dtype: str) -> Encoded:
    """Convert vectors to the form in which they are stored; vectors that are then not finite are failures.

    Args:
        vectors: [rows, dim], any float dtype.
    """
    result = vectors.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.linalg.norm(result, axis=1, keepdims=True)
        if normalize:
            result = result / np.where(norms == 0, 1, norms)
        result = result.astype(dtype)
    failures = {}
    for row in np.flatnonzero(~np.isfinite(result).all(axis=1)):
        failures[int(row)] = f"not finite: the vector has NaN or infinite values in {dtype}"
    if normalize:
        for row in np.flatnonzero(norms[:, 0] == 0):
            failures[int(row)] = "zero vector: it cannot be scaled to unit length"
    result[list(failures)] = 0
    return Encoded(result, failures)


def failures_by_category(failures: Mapping[int, str]) -> dict[str, int]:
    """Number of failed texts by category of the reason; an empty text is no failure."""
    counts: dict[str, int] = {}
    for reason in failures.values():
        if reason != EMPTY:
            category = reason.partition(":")[0]
            counts[category] = counts.get(category, 0) + 1
    return counts


def _encode_halving(encoder: TextEncoder, pieces: Sequence[Piece]) -> Computed:
    """Encode pieces; if the engine refuses them, they are halved, until each bad one is alone."""
    if not pieces:
        return Computed(np.zeros((0, encoder.dim), np.float32), 0)
    try:
        return encoder.encode(pieces)
    except ValueError as error:
        if len(pieces) == 1:
            return Computed(np.zeros((1, encoder.dim), np.float32), 0, {0: f"refused: {str(error)[:200]}"})
    middle = len(pieces) // 2
    head, tail = _encode_halving(encoder, pieces[:middle]), _encode_halving(encoder, pieces[middle:])
    return Computed(
        np.concatenate([head.vectors, tail.vectors]),
        head.tokens + tail.tokens,
        head.refused | {middle + position: reason for position, reason in tail.refused.items()},
        head.retries + tail.retries + 2,
        head.seconds + tail.seconds,
    )
