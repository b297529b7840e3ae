"""Two threads share an engine: texts are cut and vectors written while it computes, and it computes alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from alphafuse.language.text_encoders.encoder import Computed, encode_texts
from alphafuse.language.text_encoders.one_engine import OneEngine
from alphafuse.language.text_encoders.pieces import CutBatch, Piece, uncut

SECONDS = 30.0  # an end of waiting that only a fault reaches


class WaitingEncoder:
    """Computes the first batch until the second one was cut; notes the threads that compute."""

    dim = 1

    def __init__(self) -> None:
        self.cut_twice = threading.Event()
        self.cuts = 0
        self.computing = threading.Lock()
        self.threads: set[int] = set()

    def identity(self) -> dict[str, Any]:
        return {}

    def start(self) -> None:
        self.threads.add(threading.get_ident())

    def cut(self, texts: Sequence[str]) -> CutBatch:
        self.cuts += 1
        if self.cuts == 2:
            self.cut_twice.set()
        return uncut(texts)

    def encode(self, pieces: Sequence[Piece]) -> Computed:
        assert self.computing.acquire(blocking=False), "two batches are computed at once"
        try:
            assert self.cut_twice.wait(SECONDS), "no text is cut while the engine computes"
            self.threads.add(threading.get_ident())
            return Computed(np.array([[len(piece.text)] for piece in pieces], np.float32), 0)
        finally:
            self.computing.release()


def test_texts_are_cut_while_the_engine_computes_and_it_computes_alone() -> None:
    encoder = WaitingEncoder()
    engine = OneEngine(encoder)
    engine.start()
    batches = [[f"{'x' * (10 * number + position)}a" for position in range(3)] for number in range(6)]
    with ThreadPoolExecutor(2) as threads:
        encoded = list(threads.map(lambda texts: encode_texts(engine, texts, False, "float32"), batches))
    for texts, found in zip(batches, encoded, strict=True):
        np.testing.assert_array_equal(found.vectors[:, 0], [len(text) for text in texts])
        assert found.seconds > 0
    assert len(encoder.threads) == 1
    assert threading.get_ident() not in encoder.threads


def test_an_error_of_the_engine_reaches_the_thread_that_asked() -> None:
    class Refusing(WaitingEncoder):
        def encode(self, pieces: Sequence[Piece]) -> Computed:
            if len(pieces) > 1 or pieces[0].text == "bad":
                raise ValueError("a bad text")
            return Computed(np.ones((1, 1), np.float32), 2)

    encoded = encode_texts(OneEngine(Refusing()), ["good", "bad", "fine"], normalize=False, dtype="float32")
    assert encoded.failures == {1: "refused: a bad text"}
    assert (encoded.tokens, encoded.retries) == (4, 4)
