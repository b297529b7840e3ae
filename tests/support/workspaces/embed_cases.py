"""Hand-made catalogs and an encoder without a model, for the tests of the embed stage.

As a program, this file runs the stage until someone kills it: `embed_cases.py WORKSPACE FOLDER SECONDS_PER_BATCH`.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from alphafuse.config import EmbedConfig
from alphafuse.errors import ResourceError
from alphafuse.events import ignore
from alphafuse.language import canaries
from alphafuse.language.text_encoders.encoder import Computed
from alphafuse.language.text_encoders.pieces import CutBatch, Piece, uncut
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from jobs.stages.embed import embed

DIM = 8
CONFIG = EmbedConfig(batch_size=16, storage_dtype="float32")


def write_catalog(workspace: Workspace, texts: Sequence[str], shard_rows: int) -> None:
    """Write a catalog artefact like that of `prepare`; item i has the id "item-i"."""
    catalog = workspace.artifact("catalog")
    catalog.clear()
    inputs = {"texts": list(texts), "shard_rows": shard_rows}
    for shard, first in enumerate(range(0, len(texts), shard_rows)):
        content = texts[first : first + shard_rows]
        table = pa.table(
            {
                "item_index": pa.array(range(first, first + len(content)), pa.int64()),
                "item_id": [f"item-{first + row}" for row in range(len(content))],
                "text": pa.array(content, pa.string()),
                "title": pa.array(content, pa.string()),
                "text_hash": pa.array([hashlib.sha256(text.encode()).digest()[:16] for text in content], pa.binary(16)),
            }
        )
        catalog.write_table(f"part-{shard:05d}.parquet", table, fingerprint(inputs), first_row=first, row_group_size=7)
    catalog.commit(inputs)


def vector(text: str) -> np.ndarray:
    """The vector of a text from `HashEncoder`, scaled to unit length."""
    values = np.frombuffer(hashlib.sha256(text.encode()).digest()[:DIM], np.uint8).astype(np.float32) + 1
    return values / np.linalg.norm(values)


class HashEncoder:
    """Encoder whose vectors are hashes; writes to `folder` how often it was started and which texts, without the
    canaries, it has embedded.

    A text with "refused", "too long" or "not finite" in it is treated so. A text with "deadly" kills its process once,
    one with "lethal" always. Nothing is embedded before `engines` encoders have started. `tilt` is added to the first
    component of each vector.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "hash",
        seconds_per_batch: float = 0,
        starts: bool = True,
        engines: int = 1,
        tilt: float = 0,
    ) -> None:
        self.folder = folder
        self.engines = engines
        self.name = name
        self.seconds_per_batch = seconds_per_batch
        self.starts = starts
        self.tilt = tilt

    def identity(self) -> dict[str, Any]:
        return {"engine": self.name, "dim": DIM}

    def start(self) -> None:
        if not self.starts:
            raise ResourceError("the engine finds no device")
        with open(self.folder / "starts", "a") as stream:
            stream.write("start\n")

    @property
    def dim(self) -> int:
        return DIM

    def cut(self, texts: Sequence[str]) -> CutBatch:
        whole = uncut(texts)
        long = {at: "too long: 300 tokens" for at, text in enumerate(texts) if "too long" in text}
        return CutBatch([piece for piece in whole.pieces if piece.owner not in long], long, 0)

    def encode(self, pieces: Sequence[Piece]) -> Computed:
        texts = [piece.text for piece in pieces]
        while self.times_started() < self.engines:
            time.sleep(0.05)
        if any("refused" in text for text in texts):
            raise ValueError("this text is refused")
        if any("deadly" in text for text in texts) and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if any("lethal" in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds_per_batch)
        if tuple(texts) != canaries.TEXTS:
            with open(self.folder / "texts", "a") as stream:
                stream.write("".join(f"{text}\n" for text in texts))
        vectors = np.stack([vector(text) * 5 for text in texts])
        vectors[:, 0] += self.tilt
        vectors[["not finite" in text for text in texts], 3] = np.nan
        return Computed(vectors, 0)

    def embedded(self) -> list[str]:
        """All texts embedded so far, by any engine."""
        path = self.folder / "texts"
        return path.read_text().splitlines() if path.exists() else []

    def times_started(self) -> int:
        path = self.folder / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0


if __name__ == "__main__":
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        configure_logging=False,
    )
    slow = HashEncoder(Path(sys.argv[2]), seconds_per_batch=float(sys.argv[3]))
    embed(slow, CONFIG, Workspace(sys.argv[1]), ignore)
