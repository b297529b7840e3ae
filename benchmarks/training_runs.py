"""Quality of trainings that differ in a few settings, against their CPU time and memory: losses, positions, and so on.

    alphafuse run configs/toys.yaml --set data.folder=PATH --set workspace=runs/toys --until decompose
    python -m benchmarks.training_runs configs/toys.yaml --set data.folder=PATH --set workspace=runs/toys \\
        --variant "last position" train.positions=last train.batch_size=256 --variant "all positions" --reach 0.0602

Each variant trains with early stopping on one rank with one thread, in a process of its own, from the null space of
the workspace, which it leaves as it is. CPU seconds count everything from the start of training, with validations.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from alphafuse.config import Config, load_config
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.evaluation.evaluator import validation_metrics
from alphafuse.events import EpochMetrics, Event
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from alphafuse.training.loop import Trainer
from benchmarks.common.processes import memory_mib, peak_memory_mib, run_ranks
from benchmarks.common.tables import arguments, publish

PREPARED = ("catalog", "sequences", "popularity", "nullspace", "features")


def train(config: Config, folder: str, reach: float | None) -> dict[str, Any]:
    """Train in `folder` and measure; runs in a process of its own."""
    workspace, communicator, device = Workspace(folder), Communicator(), torch.device("cpu")
    monitor, curve = config.train.monitor, []
    idle, start = memory_mib(), time.process_time()

    def listen(event: Event) -> None:
        if isinstance(event, EpochMetrics):
            curve.append((event.numbers[monitor], time.process_time() - start))

    trainer = Trainer(config, workspace, {"benchmark": "training"}, communicator, device, listen)
    details = trainer.run()
    seconds, peak = time.process_time() - start, peak_memory_mib() - idle
    model = load_trained(config, workspace, communicator)
    test = validation_metrics(model, SequenceStore(workspace), "test", config.evaluate, communicator, config.similarity)
    reached = [when for value, when in curve if reach is not None and value >= reach]
    return {
        "epochs (best)": f"{len(curve)} ({details['best']['epoch']})",
        f"CPU-s to {reach}": reached[0] if reached else None,
        "CPU-s to best": curve[details["best"]["epoch"] - 1][1],
        "ms/step": 1e3 * sum(entry["seconds"] for entry in details["history"]) / details["steps"],
        "MiB": peak,
        f"validation {monitor}": f"{details['best']['value']:.4f}",
        "test hr@10": f"{test['hr@10']:.4f}",
        "test ndcg@10": f"{test['ndcg@10']:.4f}",
        "CPU-s": seconds,
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for all variants")
    parser.add_argument("--variant", action="append", nargs="+", default=[], metavar=("NAME", "KEY=VALUE"))
    parser.add_argument("--reach", type=float, help="validation metric whose CPU time is wanted")
    options = parser.parse_args()
    prepared = Path(load_config(options.config, options.set).workspace).resolve()
    rows = []
    for name, *settings in options.variant or [["as configured"]]:
        with tempfile.TemporaryDirectory() as folder:
            for artifact in PREPARED:
                (Path(folder) / artifact).symlink_to(prepared / artifact)
            config = load_config(options.config, [*options.set, *settings])
            rows.append(
                {"variant": name, "settings": " ".join(settings)}
                | run_ranks(1, train, config, folder, options.reach)[0]
            )
        publish(str(options.config), {"set": " ".join(options.set), "ranks": 1, "threads": 1}, rows, options.json)


if __name__ == "__main__":
    main()
