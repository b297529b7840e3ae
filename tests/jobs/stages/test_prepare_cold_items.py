"""Cold items in every protocol, on a log that can be read at a glance, in one and in several shards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.workspaces.prepare_cases import (
    SMALL_BUCKET,
    Row,
    configuration,
    stored_catalog,
    stored_sequences,
    write_items,
    write_log,
)

from alphafuse.config import parse_config
from alphafuse.data.hashing import hash_with_seed
from alphafuse.data.popularity import load_held_out, load_popularity
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.errors import ConfigError, WorkspaceError
from alphafuse.events import ignore
from alphafuse.storage.workspace import Workspace
from jobs.stages import prepare

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("ray_cluster")]

ITEMS = [(f"item {number}", f"text {number}") for number in range(10)]
SEED = 5
# Every user goes through all items but one, at the times 0, 1, 2 …
USERS = {f"user {user}": [f"item {item}" for item in range(10) if item != user] for user in range(10)}
PARTS = {user: ("train", "validation", "test")[number % 3] for number, user in enumerate(USERS)}
SPLITS = [{"kind": "users"}, {"kind": "leave_one_out"}, {"kind": "temporal"}, {"kind": "file", "path": "split.parquet"}]


def _cold(share: float) -> set[str]:
    """The cold items: a share of all items, those with the smallest hashes of seed and id."""
    ids = [item for item, _ in ITEMS]
    keys = hash_with_seed(pa.array(ids), SEED).tolist()
    return {item for _, item in sorted(zip(keys, ids, strict=True))[: round(share * len(ids))]}


def _prepared(folder: Path, split: dict[str, Any], name: str = "run") -> Workspace:
    write_items(folder / "items.parquet", ITEMS)
    log: list[Row] = [(user, item, float(time)) for user, items in USERS.items() for time, item in enumerate(items)]
    write_log(folder / "log.parquet", log)
    pq.write_table(pa.table({"user_id": list(PARTS), "split": list(PARTS.values())}), folder / "split.parquet")
    config = configuration(folder, split={"seed": SEED, **split}, shard_rows=3)
    workspace = Workspace(str(folder / name))
    prepare.run(config, workspace, ignore)
    return workspace


@pytest.mark.parametrize("bucket_bytes", [2**25, SMALL_BUCKET])
@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split["kind"])
def test_cold_items_leave_training_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: dict[str, Any], bucket_bytes: int
) -> None:
    monkeypatch.setattr(prepare, "BUCKET_BYTES", bucket_bytes)
    workspace, plain = _prepared(tmp_path, {**split, "cold_items": 0.3}), _prepared(tmp_path, split, "plain")
    assert (len(workspace.artifact("sequences").require().files) > 1) == (bucket_bytes == SMALL_BUCKET)
    cold, rows, warm_rows = _cold(0.3), stored_sequences(workspace), stored_sequences(plain)
    assert len(cold) == 3
    kept = ("items", "train_end", "validation_end")
    assert {u: [row[k] for k in kept] for u, row in rows.items()} == {
        u: [row[k] for k in kept] for u, row in warm_rows.items()
    }

    names = [row["item_id"] for row in stored_catalog(workspace)]
    trained = {}
    for sequences in SequenceStore(workspace).groups():
        part = sequences.trained()
        for user, name in enumerate(part.user_ids.to_pylist()):
            trained[name] = [names[item] for item in part.of(user)]
    before_cut = {user: row["items"][: row["train_end"]] for user, row in rows.items()}
    expected = {user: [item for item in items if item not in cold] for user, items in before_cut.items()}
    assert trained == expected
    lost = sum(map(len, before_cut.values())) - sum(map(len, expected.values()))

    details, before = (run.artifact("sequences").require().details for run in (workspace, plain))
    assert details["held_out_interactions"] == lost > 0
    assert details["targets"]["train"] == sum(max(len(items) - 1, 0) for items in expected.values())
    for part_name in ("validation", "test"):
        assert details["targets"][part_name] == before["targets"][part_name] > 0
    counts = Counter(item for items in expected.values() for item in items)
    assert dict(zip(names, load_popularity(workspace).tolist(), strict=True)) == {name: counts[name] for name in names}
    assert {name for name, held_out in zip(names, load_held_out(workspace), strict=True) if held_out} == cold
    assert workspace.artifact("popularity").require().details == {"held_out_items": 3}
    assert not load_held_out(plain).any()


def test_the_seed_of_the_split_decides_and_not_that_of_the_run(tmp_path: Path) -> None:
    workspace = _prepared(tmp_path, {"cold_items": 0.3})
    config = configuration(tmp_path, split={"seed": SEED, "cold_items": 0.3}, shard_rows=3)
    prepare.run(config.model_copy(update={"seed": 99}), workspace, ignore)
    other = configuration(tmp_path, split={"seed": 6, "cold_items": 0.3}, shard_rows=3)
    with pytest.raises(WorkspaceError, match=r"split\.seed: 5 → 6"):
        prepare.run(other, workspace, ignore)


@pytest.mark.parametrize("share", [-0.1, 1])
def test_a_share_of_all_items_is_refused(share: float) -> None:
    data = {"catalog": {"path": "i"}, "interactions": {"path": "l"}, "split": {"cold_items": share}}
    with pytest.raises(ConfigError, match=r"data\.split\.cold_items: input should be"):
        parse_config({"workspace": "w", "data": data})
