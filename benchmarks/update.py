"""Updating a model day by day against training it from scratch: CPU seconds, quality, stability, and new items.

    python -m benchmarks.update runs/update --days 7 --seeds 22 23 24 --json benchmarks/results/update.json

Days are cut from one log and one catalog (`benchmarks.common.days`) and split as the configuration says. Each update
continues the model of the day before; the comparison is a training on the last day from scratch. Each training runs on
one rank with one thread, in a process of its own; CPU seconds count everything from the start of training, with
validations. Texts are embedded once. Overlap and rank correlation say how far the lists have moved from those of the
day before, for the test histories of the day (`alphafuse.version_comparison`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
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
from alphafuse.storage.matrices import read_rows, to_lists
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from alphafuse.training.checkpoints.warm_start import warm_start
from alphafuse.training.loop import Trainer
from alphafuse.training.scoring_model import ScoringModel
from alphafuse.version_comparison import STABILITY_QUERIES, measure_stability, read_targets
from benchmarks.common.days import Changes, Day, Source, cut_days, movielens, parquet
from benchmarks.common.processes import run_ranks
from benchmarks.common.tables import arguments, publish
from jobs.pipeline import run_stages

CPU = torch.device("cpu")
SHARES = (
    ("later", 0.01, "the interactions that come"),
    ("new", 0.01, "the items that come"),
    ("changed", 0.01, "the items whose texts change"),
    ("removed", 0.005, "the items that leave"),
)


def embed_once(config: Config, source: Source, days: Sequence[Day], folder: Path) -> list[Path]:
    """Embed all texts that any day has; returns a file for each day, with the vectors by item id."""
    last = pd.concat([day.items.assign(number=day.items[source.item].map(day.texts)) for day in days])
    variants = last.drop_duplicates([source.item, "number"])
    names = variants[source.item] + "|" + variants["number"].astype(str)
    # A log of one interaction each: the stage `prepare` asks for one.
    log = days[-1].log.drop_duplicates(source.item)
    log = log.assign(**{source.item: log[source.item].map(lambda item: f"{item}|{days[-1].texts[item]}")})
    source.write(folder / "texts", variants.assign(**{source.item: names}).drop(columns="number"), log)
    workspace = Workspace(config.workspace)
    run_stages(config, workspace, needed_stages(config, EMBED), ignore)
    catalog = workspace.artifact("catalog")
    ids = pa.concat_tables([catalog.read_table(file, ["item_id"]) for file in catalog.require().files])
    rows = {name: row for row, name in enumerate(ids["item_id"].to_pylist())}
    vectors = read_rows(workspace.artifact("embeddings"), "embedding", 0, len(ids))
    paths = []
    for number, day in enumerate(days, start=1):
        own = vectors[[rows[f"{item}|{text}"] for item, text in day.texts.items()]]
        paths.append(folder / f"vectors-{number}.parquet")
        pq.write_table(pa.table({"item_id": list(day.texts), "embedding": to_lists(own)}), paths[-1])
    return paths


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
    objective: Any = trainer.engine.module.module
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


def follow(
    folder: Path, options: argparse.Namespace, seed: int, source: Source, days: Sequence[Day], vectors: Sequence[Path]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Train the first day, update it day by day, and train the last day from scratch; returns the rows of both tables.

    Each row's lists are compared with those of the day before.
    """

    def configuration(name: str, number: int, *settings: str) -> Config:
        data = [f"data.folder={folder}/day{number}", *source.settings]
        texts = ["embed.engine=precomputed", f"embed.precomputed={vectors[number - 1]}"]
        own = [f"workspace={folder}/seed-{seed}/{name}", f"seed={seed}", f"decompose.seed={options.seeds[0]}"]
        return load_config(options.config, [*options.set, *data, *texts, *own, *settings])

    rows, configs = [], [configuration("day1", 1)]
    for number in range(2, len(days) + 1):
        configs.append(configuration(f"day{number}", number, f"update.parent={configs[-1].workspace}"))
    configs.append(configuration("scratch", len(days)))
    names = ["day 1", *(f"day {number}, update" for number in range(2, len(days) + 1))]
    names.append(f"day {len(days)}, from scratch")
    before = [configs[0], *configs[:-2], configs[-3]]  # of the first day itself; of both last ones the day before them
    for name, config, earlier in zip(names, configs, before, strict=True):
        workspace = Workspace(config.workspace)
        run_stages(config, workspace, needed_stages(config, DECOMPOSE), ignore)
        kind = workspace.artifact("nullspace").require().details.get("update", {}).get("kind", "–")
        rows.append({"seed": seed, "training": name, "null space": kind, **run_ranks(1, train, config)[0]})
        run_stages(config, workspace, [EXPORT], ignore)
        rows[-1] |= stability(earlier, config)
    new, last = days[-1].new_items, configs[-2]
    starts = [{"seed": seed, **run_ranks(1, untrained, last, new, random)[0]} for random in (False, True)]
    return rows, starts


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("folder", type=Path, help="for data and workspaces")
    parser.add_argument("--source", type=Path, help="folder of Parquet files in the place of MovieLens-100K")
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--days", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[22])
    for name, share, what in SHARES:
        parser.add_argument(f"--{name}", type=float, default=share, help=f"share of {what} on each day but the first")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    source = movielens() if options.source is None else parquet(options.source)
    changes = Changes(options.later, options.new, options.changed, options.removed)
    days = cut_days(source, options.days, changes, options.seeds[0])
    for number, day in enumerate(days, start=1):
        source.write(folder / f"day{number}", day.items, day.log)
    data = [f"data.folder={folder}/texts", *source.settings, f"workspace={folder}/embedded"]
    vectors = embed_once(load_config(options.config, [*options.set, *data]), source, days, folder)
    rows, starts = [], []
    for seed in options.seeds:
        found = follow(folder, options, seed, source, days, vectors)
        rows += found[0]
        starts += found[1]
    given = {name: value for name, value in vars(options).items() if name not in ("folder", "json")}
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    publish("New items before the first step of the last update", settings, starts, None)
    publish("Updates and training from scratch", settings, rows, options.json, {"new items": starts})


if __name__ == "__main__":
    main()
