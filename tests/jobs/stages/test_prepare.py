"""The prepare stage: the results of every rule, in any number of buckets and shards, killed or not."""

from __future__ import annotations

import collections
import math
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.workspaces import prepare_cases
from support.workspaces.prepare_cases import (
    SMALL_BUCKET,
    Row,
    configuration,
    damaged_log,
    sequences_by_rules,
    stored_catalog,
    stored_sequences,
    write_items,
    write_log,
)

from alphafuse.config import Config
from alphafuse.errors import ConfigError, DataError, WorkspaceError
from alphafuse.events import Event, StageWarning, ignore
from alphafuse.storage.workspace import Workspace
from jobs.stages import prepare

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("ray_cluster")]

ITEMS = [(f"item {number}", f"text {number}") for number in range(20)]
KNOWN = {item for item, _ in ITEMS}
SIMPLE_LOG: list[Row] = [
    (f"user {user}", f"item {item}", float(item)) for user in range(6) for item in range(user % 3 + 3)
]


def prepared(config: Config, events: list[Event] | None = None) -> Workspace:
    workspace = Workspace(config.workspace)
    prepare.run(config, workspace, ignore if events is None else events.append)
    return workspace


def artefact_bytes(folder: Path) -> dict[str, bytes]:
    """Content of all Parquet files of a workspace."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def write_in_parts(folder: Path, log: list[Row], parts: int) -> None:
    """Write a log as log/0.parquet, log/1.parquet, …"""
    (folder / "log").mkdir()
    size = -(-len(log) // parts)
    for part in range(parts):
        write_log(folder / "log" / f"{part}.parquet", log[part * size : (part + 1) * size])


@pytest.mark.parametrize(("seed", "parts", "bucket_bytes"), [(1, 1, 2**25), (1, 3, SMALL_BUCKET), (2, 2, 2000)])
def test_sequences_are_what_the_rules_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, parts: int, bucket_bytes: int
) -> None:
    monkeypatch.setattr(prepare, "BUCKET_BYTES", bucket_bytes)
    log = damaged_log(seed, num_users=60, num_items=20)
    write_items(tmp_path / "items.parquet", ITEMS)
    write_in_parts(tmp_path, log, parts)
    workspace = prepared(
        configuration(tmp_path, interactions={"path": "log/*.parquet"}, min_user_interactions=3, shard_rows=6)
    )
    expected = sequences_by_rules(log, KNOWN, 3)
    found = stored_sequences(workspace)
    assert {user: row["items"] for user, row in found.items()} == {
        user: [item for item, _ in rows] for user, rows in expected.items()
    }
    details = workspace.artifact("sequences").require().details
    usable = [row for row in log if row[0] is not None and row[1] in KNOWN]
    everyone = sequences_by_rules(log, KNOWN, 1)
    assert details["users"] == len(expected) < len(everyone)
    assert details["interactions"] == sum(map(len, expected.values()))
    assert details["rows_read"] == len(log)
    assert details["null_user_ids_dropped"] == sum(row[0] is None for row in log) > 0
    assert details["null_item_ids_dropped"] == sum(row[0] is not None and row[1] is None for row in log) > 0
    unknown = [row[1] for row in log if None not in row[:2] and row[1] not in KNOWN]
    assert details["unknown_items_dropped"] == len(unknown) > 0
    assert set(details["unknown_item_examples"]) <= set(unknown)
    assert details["missing_timestamps"] == sum(row[2] is None for row in usable) > 0
    assert details["duplicates_dropped"] == len(usable) - sum(map(len, everyone.values())) > 0
    assert details["users_with_few_interactions"] == len(everyone) - len(expected) > 0
    lost = ("null_user_ids", "null_item_ids", "unknown_items", "duplicates")
    accounted = sum(details[f"{name}_dropped"] for name in lost) + details["interactions_of_users_with_few"]
    assert accounted + details["interactions"] == len(log)  # nothing is silently lost


def test_the_same_bytes_in_any_number_of_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_items(tmp_path / "items.parquet", ITEMS)
    write_log(tmp_path / "log.parquet", damaged_log(3, num_users=40, num_items=20))
    config = configuration(tmp_path, shard_rows=8)
    one = prepared(config.model_copy(update={"workspace": str(tmp_path / "one")}))
    monkeypatch.setattr(prepare, "BUCKET_BYTES", SMALL_BUCKET)
    many = prepared(config.model_copy(update={"workspace": str(tmp_path / "many")}))
    for name in ("catalog", "popularity"):
        found = [artefact_bytes(tmp_path / run / name) for run in ("one", "many")]
        assert found[0] == found[1]
        assert found[0]
    assert len(many.artifact("sequences").require().files) > len(one.artifact("sequences").require().files) == 1
    assert list(stored_sequences(one).items()) == list(stored_sequences(many).items())  # also in this order


def test_sources_and_workspace_may_be_uris(tmp_path: Path) -> None:
    write_items(tmp_path / "items.parquet", ITEMS)
    write_log(tmp_path / "log.parquet", damaged_log(3, num_users=40, num_items=20))
    local = prepared(configuration(tmp_path))
    remote = configuration(tmp_path, folder=f"file://{tmp_path}")
    workspace = prepared(remote.model_copy(update={"workspace": f"file://{tmp_path}/uri"}))
    assert stored_sequences(workspace) == stored_sequences(local)
    assert artefact_bytes(tmp_path / "uri") == artefact_bytes(tmp_path / "run")


def test_catalog_keeps_each_id_once_in_an_order_of_the_ids_alone(tmp_path: Path) -> None:
    items: list[tuple[str | None, str | None]] = [*ITEMS, ("item 3", "another text"), ("item 4", "text 4"), (None, "x")]
    items += [("blank", "  \t"), ("none", None)]
    write_items(tmp_path / "items.parquet", items)
    write_log(tmp_path / "log.parquet", SIMPLE_LOG)
    events: list[Event] = []
    config = configuration(tmp_path, shard_rows=9)
    workspace = Workspace(config.workspace)
    summary = prepare.run(config, workspace, events.append)
    rows = stored_catalog(workspace)
    assert [row["item_index"] for row in rows] == list(range(22))
    assert [file.rows for file in workspace.artifact("catalog").require().files] == [9, 9, 4]
    texts = {row["item_id"]: row["text"] for row in rows}
    assert texts == {**dict(ITEMS), "blank": "", "none": ""}
    details = workspace.artifact("catalog").require().details
    assert details == {
        "items": 22, "rows_read": 25, "null_ids_dropped": 1, "duplicate_ids_dropped": 2,
        "duplicates_with_other_text": 1, "empty_texts": 2, "decomposed_ids": 0,
    }  # fmt: skip
    warnings = "\n".join(event.message for event in events if isinstance(event, StageWarning))
    for said in (
        "1 catalog rows have no item id",
        "2 catalog rows repeat",
        "1 of the rows that repeat",
        "2 items have",
    ):
        assert said in warnings
    assert summary is not None
    assert summary["catalog.items"] == 22

    shuffled = [*ITEMS, ("blank", ""), ("none", "")]
    random.Random(0).shuffle(shuffled)
    other = tmp_path / "other"
    other.mkdir()
    write_items(other / "items.parquet", shuffled)
    write_log(other / "log.parquet", SIMPLE_LOG)
    again = stored_catalog(prepared(configuration(other)))
    assert [row["item_id"] for row in again] == [row["item_id"] for row in rows]
    assert [row["item_id"] for row in rows] != sorted(texts)


def test_popularity_counts_training_interactions(tmp_path: Path) -> None:
    write_items(tmp_path / "items.parquet", ITEMS)
    log = damaged_log(4, num_users=50, num_items=20)
    write_log(tmp_path / "log.parquet", log)
    workspace = prepared(configuration(tmp_path, split={"kind": "leave_one_out"}))
    sequences = sequences_by_rules(log, KNOWN, 2).values()
    times = sorted(time for rows in sequences for _, time in rows if not math.isnan(time))
    latest = times[int(0.9 * len(times))]
    counts: collections.Counter[str] = collections.Counter()
    recent: collections.Counter[str] = collections.Counter()
    for rows in sequences:
        trained = rows[:-2] if len(rows) > 2 else rows
        counts.update(item for item, _ in trained)
        recent.update(item for item, time in trained if time >= latest)
    assert 0 < recent.total() < counts.total() / 5
    found = (
        workspace.artifact("popularity")
        .read_table(workspace.artifact("popularity").file("popularity.parquet"))
        .to_pylist()
    )
    ids = [row["item_id"] for row in stored_catalog(workspace)]
    assert {ids[row["item_index"]]: row["count"] for row in found} == {item: counts[item] for item in ids}
    assert {ids[row["item_index"]]: row["recent"] for row in found} == {item: recent[item] for item in ids}


def test_users_split_8_1_1_by_seed(tmp_path: Path) -> None:
    write_items(tmp_path / "items.parquet", ITEMS)
    write_log(tmp_path / "log.parquet", [(f"u{n}", f"item {t}", float(t)) for n in range(50) for t in range(4)])
    config = configuration(tmp_path)
    parts = []
    for seed in (1, 2):
        run = config.model_copy(update={"workspace": str(tmp_path / f"run {seed}"), "seed": seed})
        rows = stored_sequences(prepared(run))
        parts.append({user: (row["train_end"], row["validation_end"]) for user, row in rows.items()})
        assert collections.Counter(parts[-1].values()) == {(4, 4): 40, (0, 4): 5, (0, 0): 5}
    assert parts[0] != parts[1]


def test_leave_one_out(tmp_path: Path) -> None:
    write_items(tmp_path / "items.parquet", ITEMS)
    write_log(tmp_path / "log.parquet", [(f"u{n}", f"item {t}", float(t)) for n in range(2, 7) for t in range(n)])
    rows = stored_sequences(prepared(configuration(tmp_path, split={"kind": "leave_one_out"})))
    ends = {user: (row["train_end"], row["validation_end"]) for user, row in rows.items()}
    assert ends == {"u2": (2, 2), "u3": (1, 2), "u4": (2, 3), "u5": (3, 4), "u6": (4, 5)}


def test_temporal_split_cuts_all_users_at_the_same_times(tmp_path: Path) -> None:
    write_items(tmp_path / "items.parquet", ITEMS)
    log = [row for row in damaged_log(5, num_users=60, num_items=20) if row[0] != "user 7"]
    log += [("user 7", "item 1", None), ("user 7", "item 2", None)]
    write_log(tmp_path / "log.parquet", log)
    workspace = prepared(configuration(tmp_path, split={"kind": "temporal", "ratios": [6, 2, 2]}))
    expected = sequences_by_rules(log, KNOWN, 2)
    times = sorted(time for rows in expected.values() for _, time in rows if not math.isnan(time))
    cuts = times[round(len(times) * 0.6)], times[round(len(times) * 0.8)]
    for user, row in stored_sequences(workspace).items():
        own = [time for _, time in expected[user]]
        ends = [sum(math.isnan(time) or time < cut for time in own) for cut in cuts]
        assert [row["train_end"], row["validation_end"]] == ends, user
    targets = workspace.artifact("sequences").require().details["targets"]
    assert min(targets.values()) > 0


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_split_by_file(tmp_path: Path, suffix: str) -> None:
    write_items(tmp_path / "items.parquet", ITEMS)
    write_log(tmp_path / "log.parquet", SIMPLE_LOG)  # users 0 to 5
    names = {"user 0": "train", "user 1": "validation", "user 2": "test", "user 3": "train", "stranger": "test"}
    if suffix == "csv":
        lines = ["split,user_id", *(f"{part},{user}" for user, part in names.items()), "test,"]
        (tmp_path / "splits.csv").write_text("\n".join(lines) + "\n")
    else:
        users, parts = [*names, None], [*names.values(), "test"]
        pq.write_table(pa.table({"user_id": users, "split": parts}), tmp_path / "splits.parquet")
    events: list[Event] = []
    workspace = prepared(configuration(tmp_path, split={"kind": "file", "path": f"splits.{suffix}"}), events)
    rows = stored_sequences(workspace)
    ends = {user: (row["train_end"], row["validation_end"]) for user, row in rows.items()}
    assert ends == {"user 0": (3, 3), "user 1": (0, 4), "user 2": (0, 0), "user 3": (3, 3)}
    details = workspace.artifact("sequences").require().details
    assert (details["users_without_split"], details["interactions_of_users_without_split"]) == (2, 4 + 5)
    assert (details["split_users_unknown"], details["split_rows_without_user_id"]) == (1, 1)
    assert details["targets"] == {"train": 4, "validation": 3, "test": 4}
    warnings = [event.message for event in events if isinstance(event, StageWarning)]
    assert any("2 users are not named in the file" in message for message in warnings)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("user 0", "dev")], "'dev'; it must be one of train, validation, test"),
        ([("user 0", "train"), ("user 0", "test")], "puts 1 users into two splits"),
        ([(None, "train")], "names no users"),
        ([("stranger", "train")], "no interactions are left of the 24 .*24 of users without a split"),
        ([("user 0", "test")], r"the split \(file\) leaves no training targets"),
    ],
)
def test_bad_split_files(tmp_path: Path, rows: list[tuple[str | None, str]], message: str) -> None:
    write_items(tmp_path / "items.parquet", ITEMS)
    write_log(tmp_path / "log.parquet", SIMPLE_LOG)
    users, parts = zip(*rows, strict=True)
    pq.write_table(pa.table({"user_id": pa.array(users, pa.string()), "split": parts}), tmp_path / "splits.parquet")
    with pytest.raises(DataError, match=message):
        prepared(configuration(tmp_path, split={"kind": "file", "path": "splits.parquet"}))


def test_without_timestamps_the_order_of_the_log_counts(tmp_path: Path) -> None:
    write_items(tmp_path / "items.parquet", ITEMS)
    items = ["item 5", "item 1", "item 5", "item 2"]
    write_log(tmp_path / "log.parquet", [("u", item, None) for item in items])
    log = {"path": "log.parquet", "timestamp": None}
    rows = stored_sequences(prepared(configuration(tmp_path, interactions=log, split={"kind": "leave_one_out"})))
    assert rows["u"]["items"] == items
    temporal = configuration(tmp_path, interactions=log, split={"kind": "temporal"})
    with pytest.raises(ConfigError, match=r"temporal needs data\.interactions\.timestamp"):
        prepared(temporal)


@pytest.mark.parametrize(
    ("log", "data", "message"),
    [
        ([("u", "nobody knows", 1.0)], {}, "1 with items that are not in the catalog.*'nobody knows'. Are its ids"),
        ([("u", "item 1", 1.0)], {}, r"1 of users with fewer than data.min_user_interactions \(2\)"),
        ([(None, "item 1", 1.0)], {}, "1 without user id"),
        (SIMPLE_LOG, {"interactions": {"path": "log.parquet", "item_id": "itemid"}}, "did you mean 'item_id'"),
        (SIMPLE_LOG, {"catalog": {"path": "items.parquet", "text": "{plot}"}}, r"has no column 'plot'\. Its columns: "),
        (SIMPLE_LOG, {"catalog": {"path": "nothing.parquet"}}, "data.catalog.path: there is no file or folder"),
        (SIMPLE_LOG, {"interactions": {"path": "*.inter"}}, "data.interactions.path: no files match"),
    ],
)
def test_what_cannot_be_prepared_is_refused(tmp_path: Path, log: list[Row], data: dict[str, Any], message: str) -> None:
    write_items(tmp_path / "items.parquet", ITEMS)
    write_log(tmp_path / "log.parquet", log)
    with pytest.raises(DataError, match=message):
        prepared(configuration(tmp_path, **data))
    assert Workspace(str(tmp_path / "run")).artifact("sequences").manifest() is None


@pytest.mark.parametrize("items", [[], [(None, "a text")]])
def test_an_empty_catalog_is_refused(tmp_path: Path, items: list[tuple[str | None, str]]) -> None:
    ids, texts = [item for item, _ in items], [text for _, text in items]
    table = pa.table({"item_id": pa.array(ids, pa.string()), "text": pa.array(texts, pa.string())})
    pq.write_table(table, tmp_path / "items.parquet")
    write_log(tmp_path / "log.parquet", SIMPLE_LOG)
    with pytest.raises(DataError, match=f"has no items: {len(items)} rows were read"):
        prepared(configuration(tmp_path))


def test_dates_in_one_file_and_numbers_in_another_are_refused(tmp_path: Path) -> None:
    write_items(tmp_path / "items.parquet", ITEMS)
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\nu,item 1,5\nu,item 2,6\n")
    (tmp_path / "b.csv").write_text("user_id,item_id,timestamp\nu,item 3,2020-01-01\n")
    with pytest.raises(DataError, match="numbers in one part of the log and dates in another"):
        prepared(configuration(tmp_path, interactions={"path": "[ab].csv"}))


def test_a_finished_stage_does_nothing_and_other_inputs_are_refused(tmp_path: Path) -> None:
    write_items(tmp_path / "items.parquet", ITEMS)
    write_log(tmp_path / "log.parquet", SIMPLE_LOG)
    prepared(configuration(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    events: list[Event] = []
    assert prepare.run(configuration(tmp_path), Workspace(str(tmp_path / "run")), events.append) is None
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    assert events == []
    with pytest.raises(WorkspaceError, match=r"min_user_interactions: 2 → 3.*--redo prepare"):
        prepared(configuration(tmp_path, min_user_interactions=3))
    write_items(tmp_path / "items.parquet", [*ITEMS, ("one more", "text")])
    with pytest.raises(WorkspaceError, match=r"catalog was made from other inputs.*files"):
        prepared(configuration(tmp_path))


@pytest.mark.parametrize(("unit", "done"), [("catalog shards", 2), ("user shards", 3)])
def test_a_killed_job_continues_and_leaves_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str, done: int
) -> None:
    write_items(tmp_path / "items.parquet", ITEMS)
    write_log(tmp_path / "log.parquet", damaged_log(6, num_users=60, num_items=20))
    program = [sys.executable, prepare_cases.__file__, str(tmp_path), unit, str(done)]
    assert subprocess.run(program, check=False, timeout=120).returncode == -signal.SIGKILL
    run = tmp_path / "run"
    left = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name[0] != "."}
    assert len([path for path in left if path.suffix == ".parquet"]) >= done
    artefact = "catalog" if unit == "catalog shards" else "sequences"
    assert not (run / artefact / "manifest.json").exists()

    monkeypatch.setattr(prepare, "BUCKET_BYTES", SMALL_BUCKET)
    config = configuration(tmp_path, shard_rows=7)
    prepared(config)
    whole = prepared(config.model_copy(update={"workspace": str(tmp_path / "whole")}))
    assert artefact_bytes(run) == artefact_bytes(tmp_path / "whole")
    for name in ("catalog", "sequences", "popularity"):
        continued = Workspace(str(run)).artifact(name).require()
        assert (continued.details, continued.files) == (
            whole.artifact(name).require().details,
            whole.artifact(name).require().files,
        )
    if artefact == "catalog":  # finished shards are not made again
        kept = [path for path in left if path.parent.name == "catalog" and path.suffix == ".parquet"]
        assert all(path.stat().st_mtime_ns == left[path] for path in kept)
    assert not (run / "scratch").exists()
