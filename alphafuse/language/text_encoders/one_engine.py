"""One engine that several threads feed: while it computes, others cut the next texts and write the last vectors."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alphafuse.language.text_encoders.encoder import Computed, TextEncoder
from alphafuse.language.text_encoders.pieces import CutBatch, Piece


class OneEngine:
    """A `TextEncoder` that several threads may use at once; computing is done for all of them by one thread.

    That thread has loaded the model, too: each other one would bring threads of its own for the products.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._thread = ThreadPoolExecutor(1, "engine")
        self._cutting = threading.Lock()

    def identity(self) -> dict[str, Any]:
        return self._encoder.identity()

    def start(self) -> None:
        self._thread.submit(self._encoder.start).result()

    @property
    def dim(self) -> int:
        return self._encoder.dim

    def cut(self, texts: Sequence[str]) -> CutBatch:
        with self._cutting:
            return self._encoder.cut(texts)

    def encode(self, pieces: Sequence[Piece]) -> Computed:
        return self._thread.submit(self._timed, pieces).result()

    def _timed(self, pieces: Sequence[Piece]) -> Computed:
        begin = time.monotonic()
        computed = self._encoder.encode(pieces)
        return dataclasses.replace(computed, seconds=time.monotonic() - begin)
