"""Kills processes of a run at random, again and again, and compares what comes out with the undisturbed run.

    python -m benchmarks.chaos --minutes 10 --json benchmarks/results/chaos.json

On a cluster of a head without CPUs and two machines with one rank and one embedding engine each (raylets of their own,
all on this machine), made-up data goes from its sources to the evaluation, with a real language model. First without a
disturbance; then, until the minutes are over, again and again into a new workspace while every T seconds (up to half of
it sooner or later) one process dies by SIGKILL: a training worker, an embedding engine, any other worker or actor of
Ray, or the raylet of a machine, in whose place another one comes. A driver that gives up is started again with the same
command, as its user would. Every file of the embeddings, the null space, the features and the model, and all ranks of
the evaluation, must be the same bit for bit: otherwise the command fails.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from alphafuse.config import RayConfig, load_config
from alphafuse.data.synthetic import SyntheticData
from alphafuse.events import ignore
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.workspace import Workspace
from benchmarks.common.tables import arguments, publish
from benchmarks.disturbance.disturbed_cluster import DisturbedCluster
from jobs import synth

COMPARED = ("catalog", "sequences", "embeddings", "nullspace", "features", "model", "evaluation")
MAX_SUBMISSIONS = 20
"""Most submissions of one round: a driver that gives up more often has a fault."""


def settings(folder: Path, items: int, epochs: int) -> dict[str, Any]:
    """The configuration of all rounds but for their workspace."""
    source = yaml.safe_load((folder / "config.yaml").read_text())
    return {
        **source,
        "embed": {"engine": "sentence_transformers", "resources": {"workers": 2}, "batch_size": max(32, items // 32)},
        "decompose": {"resources": {"workers": 2}, "null_dim": 32},
        "model": {"hidden_dim": 64, "history_length": 20},
        "train": {
            "resources": {"workers": 2},
            "batch_size": 128,
            "max_epochs": epochs,
            "patience": epochs,
            "log_steps": 1,
            "checkpoint_steps": 10,
        },
    }


def run_once(config: Path, cluster: DisturbedCluster, log: Path, until: float) -> int:
    """Run to the end, disturbed until a time of `time.monotonic` (-∞: never); returns the number of submissions."""
    command = [sys.executable, "-m", "benchmarks.disturbance.disturbed_run", str(config), cluster.address, str(log)]
    for submission in range(1, MAX_SUBMISSIONS + 1):
        with log.with_suffix(".output").open("a") as output:
            driver = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | cluster.environment)
        while driver.poll() is None:
            time.sleep(0.2)
            if time.monotonic() < until:
                cluster.disturb()
            cluster.replace_lost_machines()
        if driver.returncode == 0:
            return submission
    raise SystemExit(f"the run failed {MAX_SUBMISSIONS} times, see {log.with_suffix('.output')}")


def differences(undisturbed: Workspace, other: Workspace) -> list[str]:
    """Files of the artefacts that differ."""
    found = []
    for name in COMPARED:
        one, two = undisturbed.artifact(name), other.artifact(name)
        two.verify()
        sums = [{file.name: file.sha256 for file in artifact.require().files} for artifact in (one, two)]
        found += [
            f"{name}/{file}"
            for file in sorted(sums[0].keys() | sums[1].keys())
            if sums[0].get(file) != sums[1].get(file)
        ]
    return found


def steps_trained(log: Path) -> int:
    """Count the steps that were trained, repeated ones included: each has an event."""
    events = map(json.loads, log.read_text().splitlines())
    return sum(event["stage"] == "train" and event["kind"] == "progress" for event in events)


def share_waited(log: Path) -> float:
    """Share of the training, from its first to its last event, that stood still for checkpoints."""
    events = [event for event in map(json.loads, log.read_text().splitlines()) if event["stage"] == "train"]
    waited = sum(event["values"]["waited"] for event in events if event["kind"] == "checkpoint")
    return float(waited / (events[-1]["time"] - events[0]["time"]))


@contextlib.contextmanager
def made_up_data(options: argparse.Namespace) -> Iterator[Path]:
    """A folder with the sources, and a configuration that reads them."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        data = SyntheticData(options.items, options.users, 16, 22, 12.0)
        synth.run(data, Folder(folder), RayConfig(num_cpus=2), ignore)
        yield Path(folder)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes of disturbance, after the undisturbed run")
    parser.add_argument("--every", type=float, default=30.0, metavar="T", help="seconds between kills")
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=None, help="random seed of the choice of what is killed")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    with made_up_data(options) as folder, DisturbedCluster(options.every, random.Random(seed)) as cluster:
        tree, rows, broken = settings(folder, options.items, options.epochs), [], []
        end, base, needed = -math.inf, 0.0, 0
        for number in range(10**6):
            name = f"round-{number}" if number else "undisturbed"
            config = folder / f"{name}.yaml"
            config.write_text(yaml.safe_dump({**tree, "workspace": f"file://{folder}/{name}"}))
            before, begin = cluster.kills.copy(), time.monotonic()
            submissions = run_once(config, cluster, folder / f"{name}.jsonl", end)
            seconds, done = time.monotonic() - begin, steps_trained(folder / f"{name}.jsonl")
            wrong = differences(_workspace(folder / "undisturbed.yaml"), _workspace(config))
            if not number:
                base, needed, end = seconds, done, time.monotonic() + 60 * options.minutes
            kills = cluster.kills - before
            waited = share_waited(folder / f"{name}.jsonl")
            rows.append(_row(name, seconds, base, kills, submissions, done, needed, waited, len(wrong)))
            broken += wrong
            print(f"{name}: {seconds:.0f} s, killed {dict(kills)}, {len(wrong)} files differ", flush=True)
            if number and time.monotonic() >= end:
                break
        disturbed = rows[1:]
        total = {"run": "all rounds", **{key: sum(row[key] for row in disturbed) for key in rows[0] if key != "run"}}
        for share in ("steps redone %", "waited for checkpoints %"):
            total[share] /= len(disturbed)
        facts = {name: getattr(options, name) for name in ("minutes", "every", "items", "users", "epochs")}
        publish("Chaos", {**facts, "seed": seed, **cluster.kills}, [*rows, total], options.json)
    if broken:
        raise SystemExit(f"not the same as without a disturbance: {', '.join(broken[:10])}")


def _workspace(config: Path) -> Workspace:
    return Workspace(load_config(config).workspace)


def _row(
    name: str,
    seconds: float,
    base: float,
    kills: Counter[str],
    submissions: int,
    steps: int,
    needed: int,
    waited: float,
    wrong: int,
) -> dict[str, Any]:
    return {
        "run": name,
        "seconds": seconds,
        "seconds lost": seconds - base,
        "kills survived": kills.total(),
        "submitted again": submissions - 1,
        "steps redone %": 100.0 * (steps / needed - 1),
        "waited for checkpoints %": 100.0 * waited,
        "files that differ": wrong,
    }


if __name__ == "__main__":
    main()
