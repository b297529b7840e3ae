"""Chooses the engine that the configuration asks for."""

from __future__ import annotations

import importlib.util

from alphafuse.config import EmbedConfig
from alphafuse.language.models.language_model import LanguageModel
from alphafuse.language.text_encoders.encoder import TextEncoder
from alphafuse.language.text_encoders.sentence_transformers import SentenceTransformersEncoder
from alphafuse.language.text_encoders.vllm import VllmEncoder


def make_encoder(config: EmbedConfig) -> TextEncoder:
    """Make the encoder of `engine: vllm`, `sentence_transformers` or `auto` (vLLM if installed); it is not started."""
    model = LanguageModel.of(config)
    engine = config.engine
    if engine == "auto":
        engine = "vllm" if importlib.util.find_spec("vllm") else "sentence_transformers"
    threads = max(1, int(config.resources.cpus))
    if engine == "vllm":
        return VllmEncoder(model, config.resources.gpus, threads, config.max_num_batched_tokens)
    return SentenceTransformersEncoder(model, config.resources.gpus, threads)
