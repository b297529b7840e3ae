"""SASRec of RecTools on the split of a workspace, measured as the workspace's own methods are.

RecTools has an environment of its own (`python -m venv ENV && ENV/bin/pip install "rectools[torch]" pyarrow`):

    python -m benchmarks.rectools WORKSPACE --python ENV/bin/python

The split must be `leave_one_out`. The library's defaults, but for the length of a history and for early stopping: by
the loss of the interactions that validate here, too, since RecTools computes no ranking metric while it trains.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alphafuse.config import EvaluateConfig
from alphafuse.data.popularity import load_popularity
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.data.sequences import Sequences, ranges
from alphafuse.evaluation.ranking_metrics import ranking_metrics, tail_items
from alphafuse.storage.workspace import Workspace
from benchmarks.common.tables import arguments, publish

K = 50
"""Length of the lists; a target outside of them gains nothing in any of the metrics."""
TRAINER = Path(__file__).parent / "common" / "rectools_sasrec.py"


def known_interactions(sequences: Sequences) -> pd.DataFrame:
    """All interactions before those that test, in the columns of RecTools. The order of a user's is their time."""
    counts = sequences.validation_end
    users, positions = np.repeat(np.arange(sequences.num_users), counts), ranges(np.zeros_like(counts), counts)
    items = sequences.items[ranges(sequences.starts[:-1], counts)]
    times = pd.Timestamp("2000-01-01") + pd.to_timedelta(positions, unit="s")
    return pd.DataFrame({"user_id": users, "item_id": items, "datetime": times, "weight": 1.0})


def ranks_in_lists(lists: pd.DataFrame, targets: np.ndarray) -> np.ndarray:
    """Rank of each user's target in the user's list; one behind the longest list where it is not in it."""
    found = lists[lists["item_id"].to_numpy() == targets[lists["user_id"].to_numpy()]]
    ranks = np.full(len(targets), K + 1)
    ranks[found["user_id"].to_numpy()] = found["rank"].to_numpy()
    return ranks


def main() -> None:
    """Train, measure and print."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--python", required=True, help="of an environment with RecTools")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--patience", type=int, default=10)
    parser.add_argument("--history-length", type=int, default=50)
    parser.add_argument("--seed", type=int, default=22)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    workspace = Workspace(str(chosen.workspace))
    store = SequenceStore(workspace)
    sequences, popularity = store.read_all(), load_popularity(workspace)
    users, positions = sequences.targets("test")
    if not np.array_equal(users, np.arange(sequences.num_users)):
        raise SystemExit(f"{chosen.workspace} must have one test target for each user: data.split.kind leave_one_out")
    settings: dict[str, Any] = {
        name: value for name, value in vars(chosen).items() if name not in ("json", "workspace", "python")
    }
    with tempfile.TemporaryDirectory(prefix="alphafuse-rectools-") as folder:
        known_interactions(sequences).to_parquet(f"{folder}/interactions.parquet")
        Path(folder, "settings.json").write_text(json.dumps({**settings, "k": K}))
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run([chosen.python, TRAINER, folder], check=True, env=clean, cwd=folder)
        lists = pd.read_parquet(f"{folder}/lists.parquet")
        measured = json.loads(Path(folder, "measured.json").read_text())
    targets = sequences.items[sequences.starts[users] + positions]
    ranks = ranks_in_lists(lists, targets)
    tail = tail_items(popularity, EvaluateConfig().tail_share)[targets]
    slices = {"all": np.ones(len(ranks), bool), "head": ~tail, "tail": tail, "cold": popularity[targets] == 0}
    rows = []
    for name, inside in slices.items():
        metrics = ranking_metrics(ranks[inside], (10, 20)) if inside.any() else {}
        rows.append({"targets": name, "queries": int(inside.sum()), "NDCG@10": metrics.get("ndcg@10"),
                     "HR@10": metrics.get("hr@10"), "NDCG@20": metrics.get("ndcg@20")})  # fmt: skip
    publish("SASRec of RecTools", {**settings, **measured}, rows, chosen.json)


if __name__ == "__main__":
    main()
