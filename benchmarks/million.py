"""A million items on this machine, from source files to recommendations: `make million`.

    python -m benchmarks.million FOLDER --json benchmarks/results/million.json

Everything goes through the command line, as a user would do it: `alphafuse synth` writes catalog, embeddings and log,
`alphafuse run` does the rest. What is finished in FOLDER is kept, so give a new one to measure the whole. Beside the
trained model stands the popularity of the items, ranked for the same targets by the same rules.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from alphafuse.config import load_config
from alphafuse.stages import STAGE_NAMES
from alphafuse.storage.workspace import Workspace
from benchmarks.common.tables import arguments, publish

SETTINGS = [
    "data.split={kind: users, ratios: [18, 1, 1]}",  # a twentieth of the users tests, every prefix of theirs a query
    "train.resources.workers=2",
    "train.batch_size=256",
    "train.max_epochs=3",
    "train.validation_targets=10000",
]


class Memory:
    """Memory of this process's children together, sampled while a block runs; shared pages count once."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []  # seconds since the epoch, GiB
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def peak_between(self, start: float, stop: float) -> float:
        """Largest GiB between two times in seconds since the epoch."""
        return max((gib for when, gib in self._samples if start <= when <= stop), default=0.0)

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            self._samples.append((time.time(), total / 2**30))


def alphafuse(*words: str) -> None:
    subprocess.run([Path(sys.executable).parent / "alphafuse", *words], check=True)


def stage_times(workspace: Workspace, stage: str) -> tuple[float, float]:
    """Begin and end of a stage, from its events."""
    lines = (workspace.folder / "events").read_bytes(f"{stage}.jsonl").decode().splitlines()
    times = [json.loads(line)["time"] for line in lines]
    return times[0], times[-1]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=10**6)
    parser.add_argument("--users", type=int, default=2 * 10**5)
    parser.add_argument("--dim", type=int, default=1024)
    options = parser.parse_args()
    file = str(options.folder / "config.yaml")
    sizes = {"items": options.items, "users": options.users, "dim": options.dim}
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    begin = time.time()
    with Memory() as memory:
        alphafuse(
            "synth", str(options.folder), *(word for key, size in sizes.items() for word in (f"--{key}", str(size)))
        )
        made = time.time()
        alphafuse("run", file, *settings)
    end = time.time()
    config = load_config(options.folder / "config.yaml", SETTINGS)
    workspace = Workspace(config.workspace)
    spans = {
        "synth": (begin, made),
        **{stage: stage_times(workspace, stage) for stage in STAGE_NAMES},
        "all": (begin, end),
    }
    rows: list[dict[str, Any]] = [
        {"stage": stage, "seconds": stop - start, "peak GiB, all processes": memory.peak_between(start, stop)}
        for stage, (start, stop) in spans.items()
    ]
    evaluation = json.loads(workspace.artifact("evaluation").read_file("metrics.json"))
    ours, popular = evaluation["overall"], evaluation["baselines"]["popularity"]["overall"]
    training = workspace.artifact("model").require().details
    facts = {
        **sizes,
        "test queries": evaluation["queries"],
        "epochs": len(training["history"]),
        "steps": training["steps"],
        "ndcg@10": round(ours["ndcg@10"], 5),
        "ndcg@10 of popularity": round(popular["ndcg@10"], 5),
        "times popularity": round(ours["ndcg@10"] / popular["ndcg@10"], 1),
    }
    publish("A million items", facts, rows, options.json)


if __name__ == "__main__":
    main()
