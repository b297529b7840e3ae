"""Decoders through both engines against transformers, which computes the states of one text at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.workspaces.tiny_language_models import END, mistral_like, qwen3_like

from alphafuse.language.models.language_model import LanguageModel
from alphafuse.language.text_encoders.encoder import Encoded, encode_texts
from alphafuse.language.text_encoders.sentence_transformers import SentenceTransformersEncoder
from alphafuse.language.text_encoders.vllm import VllmEncoder

pytestmark = [pytest.mark.engine, pytest.mark.distributed]

MAX_LENGTH = 40
TEXTS = ["Toy Story (1995)", "wooden toys", "a very long text about wooden toys and trains " * 6]
PROMPT = "Instruct: find items that go with this one. Query: "


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """A process for engines alone: vLLM changes the environment and ends process groups that are not its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        yield process


def _encoded(engine: type[VllmEncoder | SentenceTransformersEncoder], folder: str, settings: dict[str, Any]) -> Encoded:
    encoder = engine(LanguageModel(folder, max_length=MAX_LENGTH, **settings), gpus=0, threads=1)
    encoder.start()
    return encode_texts(encoder, TEXTS, normalize=True, dtype="float32")


def _states(folder: Path, text: str, end: str) -> torch.Tensor:
    """Last hidden states of the tokens of a text that was cut to MAX_LENGTH: [tokens, dim]."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if end:
        ids = [*ids[: MAX_LENGTH - 1], tokenizer.convert_tokens_to_ids(end)]
    with torch.no_grad():
        return model(torch.tensor([ids[:MAX_LENGTH]])).last_hidden_state[0]


def _normalized(vectors: list[torch.Tensor]) -> np.ndarray:
    return torch.nn.functional.normalize(torch.stack(vectors), dim=1).numpy()


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        (VllmEncoder, {}),
        (VllmEncoder, {"prompt": PROMPT, "dimensions": 48}),
        (SentenceTransformersEncoder, {"prompt": PROMPT, "dimensions": 48}),
    ],
)
def test_a_decoder_that_says_how_it_is_used(
    tmp_path: Path, process: ProcessPoolExecutor, engine: type, settings: dict[str, Any]
) -> None:
    folder = qwen3_like(tmp_path / "model")
    encoded = process.submit(_encoded, engine, str(folder), settings).result()
    prompt, dimensions = settings.get("prompt", ""), settings.get("dimensions", 128)
    expected = _normalized([_states(folder, prompt + text, END)[-1, :dimensions] for text in TEXTS])
    np.testing.assert_allclose(encoded.vectors, expected, atol=1e-4)
    assert (encoded.cut, encoded.failures) == (1, {})


@pytest.mark.parametrize(
    ("engine", "settings", "end"),
    [
        (VllmEncoder, {"pooling": "last", "end_token": True}, END),
        (VllmEncoder, {"pooling": "mean"}, ""),
        (SentenceTransformersEncoder, {"pooling": "last", "end_token": False}, ""),
    ],
)
def test_a_decoder_that_says_nothing(
    tmp_path: Path, process: ProcessPoolExecutor, engine: type, settings: dict[str, Any], end: str
) -> None:
    folder = mistral_like(tmp_path / "model")
    encoded = process.submit(_encoded, engine, str(folder), settings).result()
    states = [_states(folder, text, end) for text in TEXTS]
    pooled = [each.mean(dim=0) if settings["pooling"] == "mean" else each[-1] for each in states]
    np.testing.assert_allclose(encoded.vectors, _normalized(pooled), atol=1e-4)
