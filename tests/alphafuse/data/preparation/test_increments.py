"""Files of a log as increments: each way in which a day can go wrong."""

from __future__ import annotations

import pytest

from alphafuse.data.preparation.increments import require_increments
from alphafuse.errors import DataError


def _files(*days: int | tuple[int, int]) -> list[dict[str, object]]:
    """Identities of the files of some days; a pair is a day with the content of another one."""
    pairs = [day if isinstance(day, tuple) else (day, day) for day in days]
    return [{"name": f"day-{day}.csv", "format": "csv", "sha256": f"{content}"} for day, content in pairs]


@pytest.mark.parametrize("files", [_files(1, 2), _files(1, 2, 3), _files(1, 2, 4, 7)])
def test_new_files_come_last(files: list[dict[str, object]]) -> None:
    require_increments(_files(1, 2), files)
    require_increments([], files)
    data_set = [{"format": "huggingface", "files": [{"bytes": 1, "sha256": "x"}]}]
    require_increments(data_set, data_set)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (_files(2, 3), "'day-1.csv' is missing"),
        (_files(1, 3), "'day-2.csv' is missing"),
        ([], "'day-1.csv' is missing"),
        (_files(1, (2, 9)), "'day-2.csv' has changed"),
        (_files(0, 1, 2), "'day-0.csv' comes before 'day-1.csv'"),
        (_files(1, 15, 2, 3), "'day-15.csv' comes before 'day-2.csv'"),
        (_files(2, 1), "'day-2.csv' comes before 'day-1.csv'"),
        (_files(1, 2, (3, 1)), "'day-3.csv' repeats 'day-1.csv'"),
        (_files(1, 2, 3, (4, 3)), "'day-4.csv' repeats 'day-3.csv'"),
    ],
)
def test_every_other_log_is_refused(files: list[dict[str, object]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        require_increments(_files(1, 2), files)
