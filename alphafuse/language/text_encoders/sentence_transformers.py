"""Embeds texts with sentence-transformers, which runs wherever torch runs."""

from __future__ import annotations

import copy
import importlib.metadata
import os
from collections.abc import Sequence
from typing import Any

from alphafuse.errors import ConfigError, ResourceError
from alphafuse.language.models.language_model import LanguageModel
from alphafuse.language.text_encoders.encoder import Computed
from alphafuse.language.text_encoders.pieces import CutBatch, Piece, TextCutter

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
        self._cutter: TextCutter | None = None
        self._tokens = 0

    def identity(self) -> dict[str, Any]:
        version = importlib.metadata.version("sentence-transformers")
        return {"engine": "sentence_transformers", "engine_version": version, **self.model.identity()}

    def start(self) -> None:
        if self.model.is_local:
            os.environ["HF_HUB_OFFLINE"] = "1"
        if self.model.end_token:
            raise ConfigError("embed.end_token: sentence-transformers appends no end token; set embed.engine: vllm")
        folder = self.model.folder()
        try:
            import torch
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.base.modules import Normalize
            from sentence_transformers.sentence_transformer.modules import Pooling

            engine = SentenceTransformer(
                folder,
                device="cuda" if self.gpus else "cpu",
                local_files_only=True,
                trust_remote_code=self.model.trust_remote_code,
                model_kwargs={"dtype": getattr(torch, self.model.dtype)},
                config_kwargs=self.model.hf_overrides,
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
            elif isinstance(module, Pooling) and self.model.pooling != "auto":
                module.pooling_mode = self.model.use().pooling
        engine.max_seq_length = self.model.max_length
        engine.register_forward_pre_hook(self._count_tokens)
        self._engine = engine
        # A tokenizer of its own: the engine uses its one while texts are cut.
        self._cutter = TextCutter(self.model, copy.deepcopy(engine.tokenizer))

    @property
    def dim(self) -> int:
        return self.model.kept(self._engine.get_embedding_dimension())

    def cut(self, texts: Sequence[str]) -> CutBatch:
        assert self._cutter is not None
        return self._cutter.cut(texts)

    def encode(self, pieces: Sequence[Piece]) -> Computed:
        before = self._tokens
        vectors = self._engine.encode(
            [piece.text for piece in pieces],
            prompt="",
            batch_size=_FORWARD_BATCH,
            show_progress_bar=False,
            convert_to_tensor=True,
        )
        return Computed(vectors[:, : self.dim].float().cpu().numpy(), self._tokens - before)

    def _count_tokens(self, _: Any, arguments: tuple[Any, ...]) -> None:
        """Hook before each forward pass: counts its tokens, without padding."""
        self._tokens += int(arguments[0]["attention_mask"].sum())
