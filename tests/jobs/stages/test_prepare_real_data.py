"""The prepare stage on real logs, against their published sizes and against pandas."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.workspaces.prepare_cases import configuration, stored_catalog, stored_sequences

from alphafuse.data.popularity import load_popularity
from alphafuse.events import ignore
from alphafuse.storage.workspace import Workspace
from jobs.stages import prepare

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("ray_cluster")]

TOYS = Path(__file__).parents[4] / "shared" / "data" / "toys"
MOVIELENS = "package://recbole/dataset_example/ml-100k/ml-100k"


def _prepared_movielens(folder: Path, split: dict[str, Any]) -> Workspace:
    config = configuration(
        folder,
        hidden_dim=128,
        catalog={
            "path": f"{MOVIELENS}.item",
            "text": "{movie_title} ({release_year}). {class}",
            "title": "movie_title",
        },
        interactions={"path": f"{MOVIELENS}.inter"},
        split=split,
    )
    workspace = Workspace(config.workspace)
    prepare.run(config, workspace, ignore)
    return workspace


def test_movielens(tmp_path: Path) -> None:
    workspace = _prepared_movielens(tmp_path, {"kind": "leave_one_out"})
    details = workspace.artifact("sequences").require().details
    assert (details["users"], details["interactions"]) == (943, 100_000)
    assert details["targets"] == {"train": 100_000 - 943 * 3, "validation": 943, "test": 943}
    catalog = stored_catalog(workspace)
    assert len(catalog) == 1_682
    texts = {row["item_id"]: (row["title"], row["text"]) for row in catalog}
    assert texts["1"] == ("Toy Story", "Toy Story (1995). Animation Children's Comedy")


def test_nothing_of_movielens_that_trains_is_later_than_what_tests(tmp_path: Path) -> None:
    workspace = _prepared_movielens(tmp_path, {"kind": "temporal"})
    with as_file(files("recbole") / "dataset_example/ml-100k/ml-100k.inter") as path:
        log = pd.read_csv(path, sep="\t", dtype=str)
    log.columns = [name.partition(":")[0] for name in log.columns]
    times = {(row.user_id, row.item_id): float(row.timestamp) for row in log.itertuples()}  # no pair comes twice
    parts: dict[str, list[float]] = {"train": [], "validation": [], "test": []}
    for user, row in stored_sequences(workspace).items():
        own = [times[user, item] for item in row["items"]]
        parts["train"] += own[: row["train_end"]]
        parts["validation"] += own[row["train_end"] : row["validation_end"]]
        parts["test"] += own[row["validation_end"] :]
    assert sum(map(len, parts.values())) == 100_000
    assert max(parts["train"]) < min(parts["validation"])
    assert max(parts["validation"]) < min(parts["test"])
    trained = sum(load_popularity(workspace))
    assert trained == len(parts["train"]) > 50_000  # popularity, and what is drawn by it, knows nothing of later ones


@pytest.mark.shared_data
@pytest.mark.skipif(not TOYS.exists(), reason="needs ../shared/data")
def test_toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "BUCKET_BYTES", 2**18)
    config = configuration(
        tmp_path,
        hidden_dim=128,
        folder=str(TOYS),
        catalog={"path": "items.parquet"},
        interactions={"path": "interactions.parquet"},
        split={"kind": "file", "path": "splits.parquet"},
        shard_rows=5000,
    )
    workspace = Workspace(config.workspace)
    prepare.run(config, workspace, ignore)
    details = workspace.artifact("sequences").require().details
    assert (details["users"], details["interactions"]) == (19_412, 167_597)
    assert details["targets"] == {"train": 118_445, "validation": 14_548, "test": 15_192}
    assert len(workspace.artifact("sequences").require().files) > 1

    log = pd.read_parquet(TOYS / "interactions.parquet").astype({"item_id": str, "user_id": str})
    log = log.sort_values(["user_id", "timestamp"], kind="stable")
    found = stored_sequences(workspace)
    assert {user: row["items"] for user, row in found.items()} == log.groupby("user_id")["item_id"].agg(list).to_dict()
    items = pd.read_parquet(TOYS / "items.parquet").astype({"item_id": str})
    texts = {row["item_id"]: row["text"] for row in stored_catalog(workspace)}
    assert texts == {row.item_id: " ".join(row.text.split()) for row in items.itertuples()}
