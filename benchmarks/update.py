"""Updating a model against training it from scratch, on MovieLens-100K: CPU seconds, quality, and new items.

    python -m benchmarks.update runs/update --json benchmarks/results/update.json

The second day has the whole log and catalog. The first day lacks the latest interactions and some items, drawn at
random, with all of their interactions. Both days are split by leave-one-out. The update continues the first day's
model; the comparison is a training on the second day from scratch. Each training runs on one rank with one thread, in a
process of its own; CPU seconds count everything from the start of training, with validations. Texts are embedded once.
Overlap and rank correlation say how far the lists of both second days have moved from those of the first day, for
the test histories of the second day (`alphafuse.version_comparison`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from alphafuse.config import Config, load_config
from alphafuse.data.catalog_lookup import find_ids
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.evaluation.evaluator import validation_metrics
from alphafuse.events import ignore
from alphafuse.items.item_table import ItemTable
from alphafuse.serving.recommender import load
from alphafuse.stages import DECOMPOSE, EMBED, EXPORT, TRAIN, needed_stages
from alphafuse.storage.filesystem.folder import resolve
from alphafuse.storage.matrices import read_rows, to_lists
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from alphafuse.training.checkpoints.warm_start import warm_start
from alphafuse.training.loop import Trainer
from alphafuse.training.scoring_model import ScoringModel
from alphafuse.version_comparison import STABILITY_QUERIES, measure_stability, read_targets
from benchmarks.common.processes import run_ranks
from benchmarks.common.tables import arguments, publish
from jobs.pipeline import run_stages

SOURCE = "package://recbole/dataset_example/ml-100k/ml-100k"
CPU = torch.device("cpu")


def cut_days(folder: Path, later: float, new: float, seed: int) -> list[str]:
    """Write catalog and log of both days into `folder`; returns the ids of the new items.

    Args:
        later, new: shares of the interactions and of the items that only the second day has.
    """
    items, log = (pd.read_csv(resolve(f"{SOURCE}.{kind}"), sep="\t", dtype=str) for kind in ("item", "inter"))
    item, time_column = "item_id:token", log["timestamp:float"].astype(float)
    chosen = np.random.default_rng(seed).choice(items[item], round(new * len(items)), replace=False)
    early = log[(time_column < time_column.quantile(1 - later)) & ~log[item].isin(chosen)]
    for day, (catalog, interactions) in enumerate(((items[~items[item].isin(chosen)], early), (items, log)), start=1):
        (folder / f"day{day}").mkdir(parents=True, exist_ok=True)
        catalog.to_csv(folder / f"day{day}" / "ml.item", sep="\t", index=False)
        interactions.to_csv(folder / f"day{day}" / "ml.inter", sep="\t", index=False)
    return sorted(chosen)


def embed_once(config: Config, folder: Path) -> Path:
    """Embed the whole catalog; returns a file with the vectors by item id."""
    workspace, path = Workspace(config.workspace), folder / "vectors.parquet"
    run_stages(config, workspace, needed_stages(config, EMBED), ignore)
    catalog = workspace.artifact("catalog")
    ids = pa.concat_tables([catalog.read_table(file, ["item_id"]) for file in catalog.require().files])
    vectors = read_rows(workspace.artifact("embeddings"), "embedding", 0, len(ids))
    pq.write_table(ids.append_column("embedding", to_lists(vectors)), path)
    return path


def train(config: Config) -> dict[str, Any]:
    """Train and measure; runs in a process of its own."""
    workspace, communicator, start = Workspace(config.workspace), Communicator(), time.process_time()
    trainer = Trainer(config, workspace, TRAIN.inputs(config, workspace), communicator, CPU, ignore)
    details = trainer.run()
    seconds = time.process_time() - start
    model = load_trained(config, workspace, communicator)
    test = validation_metrics(model, SequenceStore(workspace), "test", config.evaluate, communicator, config.similarity)
    epochs = f"{len(details['history'])} ({details['best']['epoch']})"
    return {"epochs (best)": epochs, "CPU-s": seconds, "hr@10": test["hr@10"], "ndcg@10": test["ndcg@10"]}


def untrained(config: Config, new_items: list[str], random: bool) -> dict[str, Any]:
    """HR@10 of all interactions with new items before the first step of an update, which has learnt from none of them.

    Args:
        random: True lets the new items begin at random, and not as their text alone.
    """
    workspace, communicator = Workspace(config.workspace), Communicator()
    trainer = Trainer(config, workspace, TRAIN.inputs(config, workspace), communicator, CPU, ignore)
    table: ItemTable = trainer.table
    objective = trainer.engine.module.module
    warm_start(config, workspace, objective.encoder, table, trainer.engine, communicator)
    indices = sorted(find_ids(workspace.artifact("catalog"), pa.array(new_items)).values())
    if random:
        generator = torch.Generator().manual_seed(config.seed)
        table.trainable[indices] = torch.randn(len(indices), table.trainable.shape[1], generator=generator)
    model, sequences = ScoringModel(objective, table, config.model.history_length), SequenceStore(workspace)
    whole = sequences.read_all()
    targets = [whole.of(user)[position] for user, position in zip(*whole.targets("train"), strict=True)]
    chosen = np.flatnonzero(np.isin(targets, indices))
    metrics = validation_metrics(model, sequences, "train", config.evaluate, communicator, config.similarity, chosen)
    start = "at random" if random else "as their text alone"
    return {"new items begin": start, "targets": len(chosen), "hr@10": metrics["hr@10"], "ndcg@10": metrics["ndcg@10"]}


def stability(first: Config, second: Config) -> dict[str, float]:
    """How far the lists of a second day have moved from those of the first one."""
    targets = read_targets(Workspace(second.workspace), STABILITY_QUERIES)
    found = measure_stability(load(first.workspace), load(second.workspace), targets, second.evaluate.exclude_seen)
    return {"overlap@10": found.overlap, "rank correlation": found.rank_correlation}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("folder", type=Path, help="for data and workspaces")
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--later", type=float, default=0.05, help="share of interactions of the second day alone")
    parser.add_argument("--new", type=float, default=0.05, help="share of items of the second day alone")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    seed = load_config(options.config, options.set).seed
    new_items = cut_days(folder, options.later, options.new, seed)

    def configuration(name: str, day: int, *settings: str) -> Config:
        data = [f"data.folder={folder}/day{day}", "data.catalog.path=ml.item", "data.interactions.path=ml.inter"]
        return load_config(options.config, [*options.set, *data, f"workspace={folder}/{name}", *settings])

    vectors = ["embed.engine=precomputed", f"embed.precomputed={embed_once(configuration('texts', 2), folder)}"]
    parent = f"update.parent={folder}/first"
    configs = {
        "first day": configuration("first", 1, *vectors),
        "second day, from scratch": configuration("scratch", 2, *vectors),
        "second day, update": configuration("update", 2, *vectors, parent),
    }
    rows: list[dict[str, Any]] = []
    for name, config in configs.items():
        workspace = Workspace(config.workspace)
        run_stages(config, workspace, needed_stages(config, DECOMPOSE), ignore)
        kind = workspace.artifact("nullspace").require().details.get("update", {}).get("kind", "–")
        rows.append({"training": name, "null space": kind, **run_ranks(1, train, config)[0]})
        run_stages(config, workspace, [EXPORT], ignore)
        rows[-1] |= stability(configs["first day"], config)
    starts = [run_ranks(1, untrained, configs["second day, update"], new_items, random)[0] for random in (False, True)]
    settings = {"later": options.later, "new": options.new, "seed": seed, "set": " ".join(options.set), "ranks": 1}
    publish("New items before the first step of the update, MovieLens-100K", settings, starts, None)
    publish("Update and training from scratch, MovieLens-100K", {**settings, "before": starts}, rows, options.json)


if __name__ == "__main__":
    main()
