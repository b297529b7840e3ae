"""Grouping of users against a plain definition, and its memory where one id is long."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.data.hashing import hash_ids
from alphafuse.data.preparation.interactions import group_users
from alphafuse.data.preparation.scratch import RunWriter, read_rows
from alphafuse.storage.filesystem.folder import Folder

LONG = "x" * 300_000


def _write(folder: Path, rows: list[tuple[str, int, float]]) -> tuple[Folder, list[str]]:
    users, items, times = zip(*rows, strict=True)
    table = pa.table({"user_id": users, "item": pa.array(items, pa.int64()), "time": pa.array(times, pa.float64())})
    scratch = Folder(str(folder))
    writer = RunWriter(scratch, "log", 1)
    writer.add(table, hash_ids(table["user_id"].combine_chunks()))
    return scratch, writer.close()


def _group(folder: Path, rows: list[tuple[str, int, float]], least: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    scratch, runs = _write(folder, rows)
    result = group_users(scratch, runs, 0, "grouped", least)
    users = result["rows"]
    return result["counts"], read_rows(scratch, [("grouped", users)], 0, users).to_pylist() if users else []


def _expected(rows: list[tuple[str, int, float]], least: int) -> list[dict[str, Any]]:
    """One user after the other, row by row."""
    logs: dict[str, list[tuple[int, float]]] = {}
    for user, item, time in rows:
        log = logs.setdefault(user, [])
        if np.isnan(time) or (item, time) not in log:
            log.append((item, time))
    result = []
    for user in sorted(logs, key=lambda user: int(hash_ids(pa.array([user]))[0])):
        items, times = zip(*logs[user], strict=True)
        filled = list(times)
        for step in (range(1, len(filled)), range(len(filled) - 2, -1, -1)):
            for row in step:
                before = row - 1 if step.step > 0 else row + 1
                filled[row] = filled[before] if np.isnan(filled[row]) else filled[row]
        if len(items) >= least:
            order = sorted(range(len(items)), key=lambda row, filled=filled: filled[row])
            result.append(
                {"user_id": user, "items": [items[row] for row in order], "times": [filled[row] for row in order]}
            )
    return result


@pytest.mark.parametrize("seed", range(5))
def test_users_as_by_plain_loops(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    times = [float(generator.choice([np.nan, 1, 2, 3, 4])) for _ in range(120)]
    names = [f"u{generator.integers(0, 25)}" for _ in times]
    rows = [(user, int(generator.integers(0, 4)), time) for user, time in zip(names, times, strict=True)]
    known = {user for user, _, time in rows if not np.isnan(time)}
    rows = [row for row in rows if row[0] in known]
    counts, found = _group(tmp_path, rows, 3)
    assert found == _expected(rows, 3)
    assert counts["interactions"] == sum(len(user["items"]) for user in found)


def test_out_of_order_rows_and_users_without_times_are_counted(tmp_path: Path) -> None:
    none = float("nan")
    rows = [("a", 0, 5.0), ("b", 1, none), ("a", 1, 3.0), ("b", 2, none), ("a", 2, 4.0), ("c", 0, 1.0)]
    counts, _ = _group(tmp_path, rows, 1)
    assert (counts["out_of_order"], counts["users_without_timestamps"]) == (1, 1)


def test_one_long_id_costs_its_own_length(tmp_path: Path) -> None:
    """A table of fixed-width strings would need 1,000 users × 300,000 characters."""
    rows = [(f"u{number // 3}", number % 5, float(number)) for number in range(3000)] + [(LONG, 1, 1.0)] * 3
    scratch, runs = _write(tmp_path, rows)
    tracemalloc.start()
    arrow_before = pa.total_allocated_bytes()
    result = group_users(scratch, runs, 0, "grouped", 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result["rows"] == 1001
    assert peak < 20 * len(LONG)
    assert pa.total_allocated_bytes() - arrow_before < 20 * len(LONG)
