"""Embeds texts with sentence-transformers, which runs wherever torch runs."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from alphafuse.errors import ResourceError
from alphafuse.language.encoder import Encoded
from alphafuse.language.model_files import LanguageModel

_FORWARD_BATCH = 64


class SentenceTransformersEncoder:
    """A `TextEncoder` over `sentence_transformers.SentenceTransformer`.

    Args:
        model: the model to load.
        gpus: 0 computes on the CPU, any other number on the GPU that the process sees.
        threads: number of CPU threads of an engine without GPU.
    """

    def __init__(self, model: LanguageModel, gpus: float, threads: int) -> None:
        self.model = model
        self.gpus = gpus
        self.threads = threads
        self._engine: Any = None
        self._tokens = 0

    def identity(self) -> dict[str, Any]:
        version = importlib.metadata.version("sentence-transformers")
        return {"engine": "sentence_transformers", "engine_version": version, **self.model.identity()}

    def start(self) -> None:
        if self.model.is_local:
            os.environ["HF_HUB_OFFLINE"] = "1"
        folder = self.model.folder()
        try:
            import torch
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.base.modules import Normalize

            engine = SentenceTransformer(
                folder,
                device="cuda" if self.gpus else "cpu",
                local_files_only=True,
                model_kwargs={"dtype": getattr(torch, self.model.dtype)},
            )
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise ResourceError(
                f"sentence-transformers did not start with embed.model {self.model.name!r} "
                f"(embed.resources.gpus {self.gpus:g}): {error}"
            ) from error
        if not self.gpus:
            torch.set_num_threads(self.threads)
        # `embed.normalize` decides whether vectors are normalised, and not the model.
        for name, module in list(engine.named_children()):
            if isinstance(module, Normalize):
                delattr(engine, name)
        engine.max_seq_length = self.model.max_length
        engine.register_forward_pre_hook(self._count_tokens)
        self._engine = engine

    @property
    def dim(self) -> int:
        return self._engine.get_embedding_dimension()

    def encode(self, texts: Sequence[str]) -> Encoded:
        failures = {} if self.model.truncate else self.model.tokenize(self._engine.tokenizer, texts)[1]
        accepted = [position for position in range(len(texts)) if position not in failures]
        vectors = np.zeros((len(texts), self.dim), np.float32)
        before = self._tokens
        if accepted:
            vectors[accepted] = (
                self._engine.encode(
                    [texts[position] for position in accepted],
                    batch_size=_FORWARD_BATCH,
                    show_progress_bar=False,
                    convert_to_tensor=True,
                )
                .float()
                .cpu()
                .numpy()
            )
        return Encoded(vectors, failures, self._tokens - before)

    def _count_tokens(self, _: Any, arguments: tuple[Any, ...]) -> None:
        """Hook before each forward pass: counts its tokens, without padding."""
        self._tokens += int(arguments[0]["attention_mask"].sum())
