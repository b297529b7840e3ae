"""The prepare stage on real logs, against their published sizes and against pandas."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from support.workspaces.prepare_cases import configuration, stored_catalog, stored_sequences

from alphafuse.events import ignore
from alphafuse.storage.workspace import Workspace
from jobs.stages import prepare

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("ray_cluster")]

TOYS = Path(__file__).parents[4] / "shared" / "data" / "toys"
MOVIELENS = "package://recbole/dataset_example/ml-100k/ml-100k"


def test_movielens(tmp_path: Path) -> None:
    config = configuration(
        tmp_path,
        hidden_dim=128,
        catalog={
            "path": f"{MOVIELENS}.item",
            "text": "{movie_title} ({release_year}). {class}",
            "title": "movie_title",
        },
        interactions={"path": f"{MOVIELENS}.inter"},
        split={"kind": "leave_one_out"},
    )
    workspace = Workspace(config.workspace)
    prepare.run(config, workspace, ignore)
    details = workspace.artifact("sequences").require().details
    assert (details["users"], details["interactions"]) == (943, 100_000)
    assert details["targets"] == {"train": 100_000 - 943 * 3, "validation": 943, "test": 943}
    catalog = stored_catalog(workspace)
    assert len(catalog) == 1_682
    texts = {row["item_id"]: (row["title"], row["text"]) for row in catalog}
    assert texts["1"] == ("Toy Story", "Toy Story (1995). Animation Children's Comedy")


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
