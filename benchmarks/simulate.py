"""Plays a run of any size on any number of ranks, with the project's own plans, and says what each stage would cost.

    python -m benchmarks.simulate --json benchmarks/results/simulate.json

No machine of such a size is needed: one process plays the ranks one after the other. Batches, lookups and exchanges,
ranges of rows and files of checkpoints are those that a real run of this size would make; the work of the other tasks
is a number of units that are really done here. A model of card, network and storage turns counts into seconds
(`benchmarks/simulation/cost_model.py` says where its constants come from). `--validate` plays a training of two ranks
that is run here as well, and sets what was said beside what was measured.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch

from alphafuse.config import TrainConfig
from benchmarks.common.tables import arguments, publish
from benchmarks.simulation.cost_model import Machine
from benchmarks.simulation.growth import EVALUATION, measure_growth
from benchmarks.simulation.made_up_log import BLOCK_USERS, MadeUpLog
from benchmarks.simulation.stages import Run, phases
from benchmarks.simulation.training_steps import Model, RankStep, play_training
from benchmarks.simulation.units import measure_units
from benchmarks.simulation.validation import compare

BUFFER_BLOCKS = 14
"""Blocks of users in the buffer for each rank, as docs/scaling.md recommends."""


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--items", type=float, default=1e8)
    parser.add_argument("--users", type=float, default=2e7)
    parser.add_argument("--interactions", type=int, default=50, help="mean of a user")
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--dim", type=int, default=1024, help="dimension of the language embeddings")
    parser.add_argument("--hidden-dim", type=int, default=128)
    parser.add_argument("--null-dim", type=int, default=64)
    parser.add_argument("--history", type=int, default=50)
    parser.add_argument("--batch", type=int, default=1024, help="windows of a rank in a step")
    parser.add_argument("--negatives", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=3, help="steps that are played")
    parser.add_argument("--network", type=float, default=Machine.network, help="bytes that a card sends a second")
    parser.add_argument("--validate", action="store_true", help="compare with a training on this machine instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.validate:
        publish("Simulation beside measurement", {"ranks": 2}, compare(), options.json)
        return
    items, users, machine = int(options.items), int(options.users), Machine(network=options.network)
    train = TrainConfig.model_validate(
        {
            "batch_size": options.batch * options.ranks,
            "shuffle_users": BUFFER_BLOCKS * BLOCK_USERS * options.ranks,
            "loss": {"num_negatives": options.negatives},
        }
    )
    model = Model(items, options.hidden_dim, options.null_dim, options.history)
    played = play_training(train, model, MadeUpLog(items, users, options.interactions), 0, options.ranks, options.steps)
    with tempfile.TemporaryDirectory() as folder:
        units = measure_units(Path(folder), items, options.dim, options.hidden_dim, options.interactions)
    growth = measure_growth()
    run = Run(
        items=items,
        users=users,
        mean_length=options.interactions,
        ranks=options.ranks,
        dim=options.dim,
        hidden_dim=options.hidden_dim,
        null_dim=options.null_dim,
        tokens=60,
        weights=6e8,
        validated=100_000,
        tested=1_000_000,
        units=units,
        training=played,
        growth=next(grown.bytes for grown in growth if grown.name == EVALUATION),
    )
    rows = [phase.row(machine) for phase in phases(run, machine)]
    grown_rows = [{**dataclasses.asdict(grown), "GB": grown.bytes * items / 1e9} for grown in growth]
    publish("What grows with the catalog in one process", {"items": items}, grown_rows, None)
    publish("Spread over the ranks in a step", {"ranks": options.ranks}, spread(played.steps), None)
    settings = {name: value for name, value in vars(options).items() if name not in ("json", "validate")}
    facts = {
        "costs": dataclasses.asdict(machine),
        "units": {name: dataclasses.asdict(unit) for name, unit in units.items()},
        "dense": dataclasses.asdict(played.dense),
        "cutting": played.cutting,
        "growth": grown_rows,
        "spread": spread(played.steps),
    }
    publish("Simulated run", settings, rows, options.json, facts)


def spread(steps: list[list[RankStep]]) -> list[dict[str, Any]]:
    """The least, mean and most of each count over the ranks and steps."""
    rows = []
    for entry in dataclasses.fields(RankStep):
        values = [getattr(rank, entry.name) for step in steps for rank in step]
        mean = sum(values) / len(values)
        rows.append(
            {
                "count": entry.name,
                "least": min(values),
                "mean": mean,
                "most": max(values),
                "most / mean": max(values) / mean if mean else 1.0,
            }
        )
    return rows


if __name__ == "__main__":
    main()
