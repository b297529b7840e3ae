"""Logs with every kind of damage, and the rules of the prepare stage written as plain loops over lists.

As a program, this file runs the stage and kills itself at a progress event: `prepare_cases.py FOLDER UNIT DONE`.
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from alphafuse.config import Config, parse_config
from alphafuse.events import Event, Progress
from alphafuse.storage.workspace import Workspace
from jobs.stages import prepare

SMALL_BUCKET = 500
"""Bytes of each bucket, so that tiny files fill several buckets."""

Row = tuple[str | None, str | None, float | None]
"""User id, item id, timestamp."""


def configuration(folder: Path, /, hidden_dim: int = 2, **data: Any) -> Config:
    """A configuration that reads items.parquet and log.parquet of `folder`; the workspace is `folder`/run."""
    sources = {"catalog": {"path": "items.parquet"}, "interactions": {"path": "log.parquet"}}
    return parse_config(
        {
            "workspace": str(folder / "run"),
            "data": {"folder": str(folder), **sources, **data},
            "model": {"hidden_dim": hidden_dim},
            "decompose": {"null_dim": 1},
        }
    )


def write_items(path: Path, items: Sequence[tuple[str | None, str | None]]) -> None:
    """Write a catalog from item ids and texts."""
    columns = list(zip(*items, strict=True))
    pq.write_table(
        pa.table({"item_id": pa.array(columns[0], pa.string()), "text": pa.array(columns[1], pa.string())}), path
    )


def write_log(path: Path, log: Sequence[Row]) -> None:
    users, items, times = zip(*log, strict=True)
    table = {"user_id": pa.array(users, pa.string()), "item_id": pa.array(items, pa.string())}
    pq.write_table(pa.table({**table, "timestamp": pa.array(times, pa.float64())}), path)


def damaged_log(seed: int, num_users: int, num_items: int) -> list[Row]:
    """Users with 1 to 12 interactions; some ids, items or times are missing, unknown, repeated or out of order."""
    generator = random.Random(seed)
    log: list[Row] = []
    for user in range(num_users):
        for time in range(generator.randint(1, 12)):
            row: Row = (f"user {user}", f"item {generator.randrange(num_items)}", float(time + generator.randint(0, 3)))
            kind = generator.random()
            if kind < 0.03:
                row = (None, row[1], row[2])
            elif kind < 0.06:
                row = (row[0], None, row[2])
            elif kind < 0.1:
                row = (row[0], f"unknown {generator.randrange(5)}", row[2])
            elif kind < 0.2:
                row = (row[0], row[1], None)
            log.append(row)
            if kind > 0.9:
                log.append(row)
    generator.shuffle(log)
    return log


def sequences_by_rules(
    log: Sequence[Row], known: set[str], min_interactions: int
) -> dict[str, list[tuple[str, float]]]:
    """Items and times of every user that stays, by the documented rules; NaN for a user without any time."""
    users: dict[str, list[tuple[str, float | None]]] = {}
    for user, item, time in log:
        if user is None or item is None or item not in known:
            continue
        rows = users.setdefault(user, [])
        if time is None or (item, time) not in rows:
            rows.append((item, time))
    result = {}
    for user, rows in users.items():
        if len(rows) < min_interactions:
            continue
        given = [time for _, time in rows if time is not None]
        time = given[0] if given else math.nan
        filled = []
        for item, own in rows:
            time = time if own is None else own
            filled.append((item, time))
        result[user] = sorted(filled, key=lambda row: row[1]) if given else filled
    return result


def stored_catalog(workspace: Workspace) -> list[dict[str, Any]]:
    """All rows of the catalog, in order."""
    artifact = workspace.artifact("catalog")
    artifact.verify()
    return pa.concat_tables([artifact.read_table(file) for file in artifact.require().files]).to_pylist()


def stored_sequences(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Rows of the sequences by user, with item ids in place of item indices."""
    names = {row["item_index"]: row["item_id"] for row in stored_catalog(workspace)}
    artifact = workspace.artifact("sequences")
    artifact.verify()
    result = {}
    for file in artifact.require().files:
        for row in artifact.read_table(file).to_pylist():
            assert row["user_id"] not in result
            result[row["user_id"]] = {**row, "items": [names[index] for index in row["items"]]}
    return result


if __name__ == "__main__":
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        configure_logging=False,
    )

    def killed_at(event: Event) -> None:
        if isinstance(event, Progress) and (event.unit, event.done) == (sys.argv[2], int(sys.argv[3])):
            os.kill(os.getpid(), signal.SIGKILL)

    prepare.BUCKET_BYTES = SMALL_BUCKET
    config = configuration(Path(sys.argv[1]), shard_rows=7)
    prepare.run(config, Workspace(config.workspace), killed_at)
