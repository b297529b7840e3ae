"""The stage `embed` beside `LLM.embed` of vLLM alone and sentence-transformers alone, on the same texts.

    python -m benchmarks.embed --texts toys/items.parquet beauty/items.parquet --json benchmarks/results/embed.json

The start of an engine, from that of its process to the loaded model, does not count. Everything else of the stage does:
the plan, Ray Data, reading, writing, assembling. `LLM.embed` runs twice: as vLLM sets itself up, and with the settings
of the stage (one process, threads not bound to cores). The texts are the first different ones of the column `text`.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from alphafuse.config import EmbedConfig
from alphafuse.data.hashing import hash_texts
from alphafuse.events import ignore
from alphafuse.language.models.language_model import LanguageModel
from alphafuse.language.text_encoders.encoder import Computed, TextEncoder
from alphafuse.language.text_encoders.encoder_building import make_encoder
from alphafuse.language.text_encoders.pieces import CutBatch, Piece
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.matrices import read_rows
from alphafuse.storage.workspace import Workspace
from benchmarks.common.tables import arguments, publish
from jobs.stages.embed import embed

SHARD_ROWS = 10_000


class TimedEncoder:
    """An encoder that notes in `folder` how long its engine takes to start, from the start of its process on."""

    def __init__(self, encoder: TextEncoder, folder: str) -> None:
        self._encoder = encoder
        self._folder = folder

    def identity(self) -> dict[str, Any]:
        return self._encoder.identity()

    def start(self) -> None:
        begin = psutil.Process().create_time()
        self._encoder.start()
        (Path(self._folder) / f"start-{os.getpid()}").write_text(json.dumps([begin, time.time()]))

    @property
    def dim(self) -> int:
        return self._encoder.dim

    def cut(self, texts: Sequence[str]) -> CutBatch:
        return self._encoder.cut(texts)

    def encode(self, pieces: Sequence[Piece]) -> Computed:
        return self._encoder.encode(pieces)


class PlainVllm:
    """Code that a user would write with vLLM alone; runs in a process of its own."""

    def __init__(self, folder: str, config: EmbedConfig) -> None:
        from vllm import LLM

        self._engine = LLM(
            model=folder,
            runner="pooling",
            enforce_eager=True,
            dtype=config.dtype,
            max_model_len=config.max_length,
        )

    def embed(self, texts: Sequence[str]) -> tuple[float, np.ndarray]:
        """Seconds, and the vectors as they come."""
        begin = time.perf_counter()
        outputs = self._engine.embed(list(texts), use_tqdm=False)
        vectors = np.array([output.outputs.embedding for output in outputs], np.float32)
        return time.perf_counter() - begin, vectors


class PlainSentenceTransformers:
    """Code that a user would write with sentence-transformers alone; runs in a process of its own."""

    def __init__(self, folder: str, config: EmbedConfig) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self._engine = SentenceTransformer(
            folder, device="cpu", model_kwargs={"dtype": getattr(torch, config.dtype)}, local_files_only=True
        )

    def embed(self, texts: Sequence[str]) -> tuple[float, np.ndarray]:
        """Seconds, and the vectors as they come."""
        begin = time.perf_counter()
        vectors = self._engine.encode(list(texts), batch_size=64, show_progress_bar=False, convert_to_tensor=True)
        return time.perf_counter() - begin, vectors.float().numpy()


SAME_SETTINGS = "LLM.embed alone, settings of the stage"
ENGINES: list[tuple[str, type, Mapping[str, str]]] = [
    ("LLM.embed alone", PlainVllm, {}),
    (SAME_SETTINGS, PlainVllm, {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}),
    ("sentence-transformers alone", PlainSentenceTransformers, {}),
]


def _embed(actor: Any, texts: Sequence[str]) -> tuple[float, np.ndarray]:
    """Seconds and vectors of an engine in another process."""
    found: tuple[float, np.ndarray] = ray.get(actor.embed.remote(texts))
    return found


def run_stage(texts: Sequence[str], config: EmbedConfig) -> tuple[float, np.ndarray]:
    """Seconds of the whole stage but for the starts of its engines, and the stored vectors."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder)
        write_catalog(workspace, texts)
        begin = time.time()
        embed(TimedEncoder(make_encoder(config), folder), config, workspace, ignore)
        seconds = time.time() - begin
        starts = [json.loads(path.read_text()) for path in Path(folder).glob("start-*")]
        # While one engine still starts, another that is ready embeds: each counts for its share of the engines.
        starting = mean(stop for _, stop in starts) - max(begin, min(start for start, _ in starts))
        return seconds - starting, read_rows(workspace.artifact("embeddings"), "embedding", 0, len(texts))


def write_catalog(workspace: Workspace, texts: Sequence[str]) -> None:
    """The catalog as `prepare` makes it."""
    catalog, inputs = workspace.artifact("catalog"), {"benchmark": "embed"}
    for shard, first in enumerate(range(0, len(texts), SHARD_ROWS)):
        content = pa.array(texts[first : first + SHARD_ROWS], pa.string())
        index = np.arange(first, first + len(content))
        ids = [f"item {number}" for number in index]
        table = pa.table(
            [index, ids, content, content, hash_texts(content)],
            ["item_index", "item_id", "text", "title", "text_hash"],
        )
        catalog.write_table(f"part-{shard:05d}.parquet", table, fingerprint(inputs), first_row=first)
    catalog.commit(inputs)


def read_texts(paths: Sequence[Path], count: int) -> list[str]:
    """The first `count` different texts of the files."""
    texts = dict.fromkeys(text for path in paths for text in pq.read_table(path, columns=["text"])["text"].to_pylist())
    return [text for text in texts if text.strip()][:count]


def environment(threads: int, more: Mapping[str, str]) -> Mapping[str, Any]:
    """Runtime environment of the plain engines' processes."""
    variables = {
        **more,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    return {"env_vars": variables}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="Parquet files with a column `text`")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--workers", type=int, default=1, help="engines of the stage")
    parser.add_argument("--threads", type=int, default=2, help="threads of all engines of a case together")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = read_texts(options.texts, options.count)
    config = EmbedConfig.model_validate(
        {
            "dtype": options.dtype,
            "resources": {"workers": options.workers, "cpus": options.threads // options.workers},
        }
    )
    ray.init("local", include_dashboard=False, log_to_driver=False)
    folder = LanguageModel.of(config).folder()
    cases: dict[str, Callable[[], tuple[float, np.ndarray]]] = {}
    for name, engine, variables in ENGINES:
        environment_variables = environment(options.threads, variables)
        actor: Any = ray.remote(engine).options(num_cpus=0, runtime_env=environment_variables).remote(folder, config)
        ray.get(actor.embed.remote(texts[:64]))
        cases[name] = partial(_embed, actor, texts)
    cases["the stage embed"] = lambda: run_stage(texts, config)
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    vectors: dict[str, np.ndarray] = {}
    for _ in range(options.rounds):
        for name, case in cases.items():
            elapsed, found = case()
            seconds[name].append(elapsed)
            vectors[name] = found / np.linalg.norm(found, axis=1, keepdims=True)
    first = vectors[SAME_SETTINGS]
    rows = [
        {
            "case": name,
            "seconds": median(seconds[name]),
            "texts/s": len(texts) / median(seconds[name]),
            "speed / LLM.embed": median(
                plain / own for plain, own in zip(seconds[SAME_SETTINGS], seconds[name], strict=True)
            ),
            "smallest cosine to LLM.embed": f"{float((vectors[name] * first).sum(axis=1).min()):.6f}",
        }
        for name in cases
    ]
    settings = {
        "texts": len(texts), "mean characters": round(float(np.mean([len(text) for text in texts]))),
        "dtype": config.dtype, "engines of the stage": config.resources.workers, "threads": options.threads,
        "batch_size": config.texts_per_batch, "rounds": options.rounds,
    }  # fmt: skip
    publish("Embedding", settings, rows, options.json)


if __name__ == "__main__":
    main()
