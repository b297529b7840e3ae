"""Canaries: texts that every engine embeds before it begins, so that vectors of engines that differ are never mixed.

Engines of one job may differ by machine, and those of a resumed job by library: another processor, driver or kernel
computes other vectors from the same model, mostly by rounding, sometimes by a fault.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from alphafuse.errors import ResourceError
from alphafuse.language.text_encoders.encoder import TextEncoder, encode_texts

LARGEST_DRIFT = 1e-3
"""Largest 1 − cosine between two engines' vectors of a text; those of bfloat16 and float32 differ by less."""

_WORDS = (
    "wooden train set for children, 24 pieces — ages 3+ | café crème naïve 木のおもちゃ игрушка 🎬 "
    "USB-C 65W charger (GaN) $39.99; see <b>details</b> & reviews: 100% cotton, size XL/XXL, red/blue"
)


def _texts() -> Iterator[str]:
    words = _WORDS.split()
    for number in range(64):
        yield " ".join(words[(7 * number + 5 * position) % len(words)] for position in range(1 + number))


TEXTS = tuple(_texts())
"""64 texts of 1 to 64 words, of the kinds that catalogs hold."""


def canary_vectors(encoder: TextEncoder) -> np.ndarray:
    """Embed the canaries with a started encoder: float32 [64, dim], of unit length; zeros where it refuses a text."""
    return encode_texts(encoder, TEXTS, normalize=True, dtype="float32").vectors


def require_same_engine(vectors: np.ndarray, reference: np.ndarray, machine: str) -> None:
    """Check an engine's canaries against those of the job's first engine.

    Args:
        vectors, reference: [64, dim], as `canary_vectors` gives them.
        machine: name of the engine's machine, for the message.

    Raises:
        ResourceError: they differ by more than `LARGEST_DRIFT`.
    """
    if vectors.shape == reference.shape:
        cosines = np.sum(vectors * reference, axis=1, dtype=np.float64)
        refused = ~vectors.any(axis=1) & ~reference.any(axis=1)
        drift = float((1 - np.where(refused, 1, cosines)).max())
        if drift <= LARGEST_DRIFT:
            return
        difference = f"1 − cosine up to {drift:.2g}, more than {LARGEST_DRIFT:g}"
    else:
        difference = f"{vectors.shape[1]} components, where they have {reference.shape[1]}"
    raise ResourceError(
        f"an embedding engine on {machine} computes other vectors than those that are stored ({difference}), from the "
        "same model and settings: its libraries, driver or processor differ, or changed since this job began. Run all "
        "engines on machines of one kind (embed.resources.pool), or make all embeddings again: --redo embed"
    )
