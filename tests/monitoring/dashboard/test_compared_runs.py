"""The page that compares runs, without a browser."""

from __future__ import annotations

import pytest

from monitoring.dashboard.pages.comparison import data_sets, short_names
from monitoring.run_log.reader import Run


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["grid/a-1", "grid/b-1"], ["a-1", "b-1"]),
        (["grid/a-1", "other/a-1"], ["grid/a-1", "other/a-1"]),
        (["runs/grid/a", "runs/b"], ["grid/a", "b"]),
        (["grid/a"], ["a"]),
        (["a"], ["a"]),
        ([], []),
    ],
)
def test_names_lose_the_folders_that_all_have(keys: list[str], expected: list[str]) -> None:
    assert list(short_names([Run(key, "") for key in keys])) == expected


def test_runs_are_grouped_by_their_data() -> None:
    def run(key: str, path: str, kind: str, **data: object) -> Run:
        source = {"path": path, "item_id": "item_id"}
        return Run(key, "", {"data": {"folder": ".", "interactions": source, "split": {"kind": kind}, **data}})

    runs = [
        run("a", "toys.csv", "users"),
        run("b", "toys.csv", "leave_one_out"),
        run("c", "toys.csv", "users", resources={"cpus": 4}),  # the same data, read by more processors
        run("d", "toys.csv", "users", min_user_interactions=5),
        Run("e", ""),  # nothing is known yet
    ]
    groups = {name: [each.key for each in members] for name, members in data_sets(runs).items()}
    assert groups == {
        "toys.csv, split users": ["a", "c"],
        "toys.csv, split leave_one_out": ["b"],
        "toys.csv, split users #2": ["d"],
        "data, split unknown": ["e"],
    }
