"""The stage `decompose` beside one Gram product in memory, and beside what numpy and scikit-learn offer.

    python -m benchmarks.decompose --items 1000000 --dim 1024 --folder FOLDER \\
        --json benchmarks/results/decompose_1024.json

Embeddings are made up (`alphafuse synth` does the same) and stored as `embed` stores them, float16. `gram` and
`randomized` are timed from the start of the job to the end of the decomposition, with reading, merging and the
eigenproblem, but without Ray's start and without writing features. The libraries get a subset that they can hold.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import ray
import torch
from sklearn.decomposition import IncrementalPCA
from sklearn.utils.extmath import randomized_svd

from alphafuse.config import Config, parse_config
from alphafuse.data.synthetic import BLOCK, SyntheticData, num_blocks
from alphafuse.events import Event
from alphafuse.nullspace.decomposition import load_nullspace
from alphafuse.nullspace.randomized import faster_method
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.matrices import iterate_rows, read_rows, to_column
from alphafuse.storage.workspace import Workspace
from benchmarks.common.tables import arguments, publish
from jobs.stages import decompose

INPUTS = {"benchmark": "decompose"}
HIDDEN_DIM, NULL_DIM = 128, 64
BLOCKS_PER_SHARD = 6


@ray.remote
def write_shard(workspace: Workspace, data: SyntheticData, number: int) -> None:
    """One shard of embeddings, as the stage `embed` would leave it."""
    first = number * BLOCKS_PER_SHARD
    blocks = range(first, min(first + BLOCKS_PER_SHARD, num_blocks(data.num_items)))
    columns = [to_column(data.embeddings(block).astype(np.float16)) for block in blocks]
    index = pa.array(range(first * BLOCK, first * BLOCK + sum(len(column) for column in columns)), pa.int64())
    table = pa.table({"item_index": index, "embedding": pa.chunked_array(columns)})
    artifact = workspace.artifact("embeddings")
    artifact.write_table(f"part-{number:05d}.parquet", table, fingerprint(INPUTS), first_row=first * BLOCK)


def make_workspace(folder: Path, num_items: int, dim: int) -> Workspace:
    """Make a workspace of embeddings and a popularity that falls with the item's index; it is kept for the next run."""
    workspace = Workspace(str(folder))
    if workspace.artifact("popularity").manifest() is None:
        data = SyntheticData(num_items, 1, dim, seed=1)
        shards = range(-(-num_blocks(num_items) // BLOCKS_PER_SHARD))
        ray.get([write_shard.remote(workspace, data, number) for number in shards])
        workspace.artifact("embeddings").commit(INPUTS)
        counts = np.maximum(1, 10_000 // np.arange(1, num_items + 1))
        table = pa.table({"item_index": np.arange(num_items), "count": counts})
        workspace.artifact("popularity").write_table("popularity.parquet", table, fingerprint(INPUTS))
        workspace.artifact("popularity").commit(INPUTS)
    return workspace


def configuration(workspace: Workspace, method: str, workers: int, weighted: bool) -> Config:
    return parse_config(
        {
            "workspace": workspace.folder.uri,
            "data": {"catalog": {"path": "items.parquet"}, "interactions": {"path": "log.parquet"}},
            "decompose": {
                "method": method,
                "resources": {"workers": workers},
                "null_dim": NULL_DIM,
                "popularity_weighted": weighted,
            },
            "model": {"hidden_dim": HIDDEN_DIM},
        }
    )


class Stop(Exception):
    """Ends the job after the decomposition."""


def run_job(workspace: Workspace, method: str, workers: int, weighted: bool = False) -> tuple[float, float]:
    """Seconds of the decomposition, and the peak memory of its largest worker in MiB."""
    for name in ("nullspace", "features"):
        shutil.rmtree(Path(workspace.folder.uri) / name, ignore_errors=True)

    def listen(event: Event) -> None:
        if workspace.artifact("nullspace").manifest() is not None:
            raise Stop

    with _PeakMemory() as memory:
        start = time.perf_counter()
        with contextlib.suppress(Stop):
            decompose.run(configuration(workspace, method, workers, weighted), workspace, listen)
        return time.perf_counter() - start, memory.peak_mib


class _PeakMemory:
    """Largest resident size of any Ray worker while the block runs, sampled every 20 ms."""

    def __enter__(self) -> _PeakMemory:
        self.peak_mib, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.name().startswith("ray::"):
                        self.peak_mib = max(self.peak_mib, process.memory_info().rss / 2**20)
                except psutil.NoSuchProcess:
                    continue


def torch_gram(rows: torch.Tensor) -> tuple[float, None]:
    """Seconds of one float32 Gram product of all rows, on all cores."""
    start = time.perf_counter()
    _ = rows.T @ rows
    return time.perf_counter() - start, None


def largest_error(workspace: Workspace, num_items: int, dim: int) -> float:
    """Largest error of an eigenvalue against a float64 covariance summed up here, relative to the eigenvalue."""
    total, squares = np.zeros(dim), np.zeros((dim, dim))
    for _, block, _ in iterate_rows(workspace.artifact("embeddings"), "embedding", 0, num_items):
        rows = block.astype(np.float64)
        total += rows.sum(axis=0)
        squares += rows.T @ rows
    mean = total / num_items
    values = np.linalg.eigvalsh((squares - num_items * np.outer(mean, mean)) / (num_items - 1))[::-1][:HIDDEN_DIM]
    nullspace = load_nullspace(workspace)
    return float(np.max(np.abs(nullspace.eigenvalues / nullspace.scale**2 / values - 1)))


def libraries(rows: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Calls, by name, that a user would make on a matrix in memory, float32 [items, dim]."""

    def covariance_and_svd() -> None:
        np.linalg.svd(np.cov(rows, rowvar=False))

    def incremental() -> None:
        IncrementalPCA(HIDDEN_DIM, batch_size=8192).fit(rows)

    def randomized() -> None:
        randomized_svd(rows - rows.mean(axis=0), HIDDEN_DIM, n_oversamples=16, n_iter=2, random_state=0)

    return {
        "np.cov + np.linalg.svd": covariance_and_svd,
        "sklearn IncrementalPCA": incremental,
        "sklearn randomized_svd": randomized,
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--items", type=int, default=10**6)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--subset", type=int, default=10**5, help="items for the libraries")
    parser.add_argument("--folder", type=Path, required=True, help="for the embeddings, kept between runs")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ray.init("local", include_dashboard=False, log_to_driver=False)
    workspace = make_workspace(options.folder / f"{options.items}x{options.dim}", options.items, options.dim)
    size = options.items * options.dim
    in_memory = torch.from_numpy(read_rows(workspace.artifact("embeddings"), "embedding", 0, options.items))
    cases: dict[str, Callable[[], tuple[float, float | None]]] = {
        "torch Gram product in memory, float32": functools.partial(torch_gram, in_memory),
        "gram": lambda: run_job(workspace, "gram", options.workers),
        "gram, weighted by popularity": lambda: run_job(workspace, "gram", options.workers, weighted=True),
        "randomized": lambda: run_job(workspace, "randomized", options.workers),
    }
    results: dict[str, list[tuple[float, float | None]]] = {name: [] for name in cases}
    errors: dict[str, float] = {}
    for number in range(options.rounds):
        for name, case in cases.items():
            results[name].append(case())
            if number == 0 and name in ("gram", "randomized"):
                errors[name] = largest_error(workspace, options.items, options.dim)
    first = median(seconds for seconds, _ in results["torch Gram product in memory, float32"])
    rows = []
    for name, runs in results.items():
        seconds, peaks = median(seconds for seconds, _ in runs), [peak for _, peak in runs if peak is not None]
        rows.append(_row(name, options.items, seconds, seconds / first, max(peaks, default=None), errors.get(name)))
    del in_memory, cases
    subset = read_rows(workspace.artifact("embeddings"), "embedding", 0, min(options.subset, options.items))
    for name, call in libraries(subset).items():
        start = time.perf_counter()
        call()
        rows.append(_row(f"{name}, in memory", len(subset), time.perf_counter() - start, None, None, None))
    settings = {
        "dim": options.dim,
        "GB": round(2 * size / 1e9, 2),
        "workers": options.workers,
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        "auto takes": faster_method(options.dim, HIDDEN_DIM, oversampling=16, power_passes=2),
    }
    publish("Decomposition", settings, rows, options.json)


def _row(
    name: str, items: int, seconds: float, ratio: float | None, peak: float | None, error: float | None
) -> dict[str, Any]:
    return {
        "case": name,
        "items": items,
        "seconds": seconds,
        "ratio": ratio,
        "MiB/worker": peak,
        "error of eigenvalues": None if error is None else f"{error:.1e}",
    }


if __name__ == "__main__":
    main()
