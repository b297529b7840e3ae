"""The page that compares runs, without a browser."""

from __future__ import annotations

import pytest

from monitoring.dashboard.pages.comparison import short_names
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
