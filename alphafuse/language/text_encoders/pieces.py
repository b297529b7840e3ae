"""Puts texts into the form in which engines read them: behind the prompt, cut, or in parts that are averaged.

Works on the tokens of the model's own tokenizer; knows nothing of engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from alphafuse.errors import ConfigError
from alphafuse.language.models.language_model import LanguageModel


@dataclass(frozen=True)
class Piece:
    """An input of an engine: a text, or a part of a long one, behind the prompt.

    Attributes:
        owner: position of the text in its batch.
        text: with the prompt; whoever tokenizes it cuts it to `max_length` tokens.
        token_ids: the tokens, with special ones, at most `max_length`.
        weight: share in the mean of the text's pieces.
    """

    owner: int
    text: str
    token_ids: list[int]
    weight: float


@dataclass(frozen=True)
class CutBatch:
    """The pieces of a batch of texts.

    Attributes:
        pieces: in the order of the texts; those in `failures` have none.
        failures: position of a text → the reason why it is not embedded.
        cut: number of texts that lost their end.
    """

    pieces: list[Piece]
    failures: dict[int, str]
    cut: int

    def merge(self, vectors: np.ndarray, count: int) -> np.ndarray:
        """Vectors of `count` texts from those of the pieces: float32 [count, dim]; zeros for failures.

        Args:
            vectors: [pieces, dim].
        """
        if not self.pieces:
            return np.zeros((count, vectors.shape[1]), np.float32)
        weights = np.array([piece.weight for piece in self.pieces])
        merged = np.zeros((count, vectors.shape[1]))
        np.add.at(merged, [piece.owner for piece in self.pieces], weights[:, None] * vectors)
        return merged.astype(np.float32)


def uncut(texts: Sequence[str]) -> CutBatch:
    """Every text as one piece without tokens, for encoders that read texts of any length."""
    return CutBatch([Piece(at, text, [], 1.0) for at, text in enumerate(texts)], {}, 0)


class TextCutter:
    """Cuts texts for a model; by one thread at a time, since the tokenizer keeps how it cuts.

    Args:
        tokenizer: tokenizer of the model, from the package transformers.

    Raises:
        ConfigError: the last token is pooled, and texts do not end with a special one; or the prompt leaves no room.
    """

    def __init__(self, model: LanguageModel, tokenizer: Any) -> None:
        use = model.use()
        self._model = model
        self._tokenizer = tokenizer
        self._prompt = use.prompt
        self._end = [tokenizer.eos_token_id] if model.end_token else []
        if None in self._end:
            raise ConfigError(f"embed.end_token: the tokenizer of {model.name!r} has no end token")
        if use.pooling == "lasttoken" and model.end_token is None:
            ids = self._tokens(["a"])[0]
            if ids[-1] not in tokenizer.all_special_ids:
                raise ConfigError(
                    f"embed.model {model.name!r} pools the last token, and its tokenizer adds no special one: "
                    "set embed.end_token: true where the model was trained with an end token, else false"
                )
        self._room = model.max_length - len(self._tokens([""])[0])
        if self._room < 1:
            raise ConfigError(f"embed.prompt fills the {model.max_length} tokens of embed.max_length")

    def cut(self, texts: Sequence[str]) -> CutBatch:
        """Cut a batch of texts as `long_texts` asks for."""
        limit, how = self._model.max_length, self._model.long_texts
        token_ids = self._tokens(texts)
        lengths = {at: len(ids) for at, ids in enumerate(token_ids) if len(ids) > limit}
        failures: dict[int, str] = {}
        if how == "quarantine":
            failures = {at: f"too long: {length} tokens, embed.max_length is {limit}" for at, length in lengths.items()}
        elif how == "cut":
            for at, ids in zip(lengths, self._tokens([texts[at] for at in lengths], limit), strict=True):
                token_ids[at] = ids
        pieces: list[Piece] = []
        for at, text in enumerate(texts):
            if how == "average" and at in lengths:
                pieces += self._parts(at, text)
            elif at not in failures:
                pieces.append(Piece(at, self._prompt + text, token_ids[at], 1.0))
        return CutBatch(pieces, failures, len(lengths) if how == "cut" else 0)

    def _tokens(self, texts: Sequence[str], limit: int | None = None) -> list[list[int]]:
        """Tokens of texts behind the prompt, with special tokens; cut where there is a limit."""
        options: dict[str, Any] = {"verbose": False}
        if limit is not None:
            options = {"truncation": True, "max_length": limit - len(self._end)}
        if not texts:
            return []
        encoded = self._tokenizer([self._prompt + text for text in texts], **options)["input_ids"]
        return [ids + self._end for ids in encoded]

    def _parts(self, owner: int, text: str) -> list[Piece]:
        """Consecutive parts of a text that fit behind the prompt, weighted by their numbers of tokens."""
        if not self._tokenizer.is_fast:
            raise ConfigError(
                f"embed.long_texts: average needs a fast tokenizer, which {self._model.name!r} has not; set it to cut"
            )
        options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        offsets = self._tokenizer(text, **options)["offset_mapping"]
        # A part alone may have more tokens than within its text: fewer fit then.
        for room in range(self._room, 0, -1):
            bounds = [*range(0, len(offsets), room), len(offsets)]
            parts = [text[offsets[start][0] : offsets[stop - 1][1]] for start, stop in pairwise(bounds)]
            token_ids = self._tokens(parts)
            if max(map(len, token_ids)) <= self._model.max_length:
                weights = np.diff(bounds) / len(offsets)
                rows = zip(parts, token_ids, weights.tolist(), strict=True)
                return [Piece(owner, self._prompt + part, ids, weight) for part, ids, weight in rows]
        raise ConfigError(f"embed.prompt fills the {self._model.max_length} tokens of embed.max_length")
