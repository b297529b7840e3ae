"""Days that are cut from a log, against what each of them must hold."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.common.days import Changes, Source, cut_days, parquet

ITEMS, ROWS = 100, 1000


@pytest.fixture
def source(tmp_path: Path) -> Source:
    generator = np.random.default_rng(0)
    pd.DataFrame({"item_id": range(ITEMS), "text": [f"text {item}" for item in range(ITEMS)]}).to_parquet(
        tmp_path / "items.parquet"
    )
    log = {"user_id": generator.integers(20, size=ROWS), "item_id": generator.integers(ITEMS, size=ROWS)}
    pd.DataFrame({**log, "timestamp": generator.permutation(ROWS)}).to_parquet(tmp_path / "interactions.parquet")
    return parquet(tmp_path)


def test_each_day_brings_what_it_should(source: Source, tmp_path: Path) -> None:
    days = cut_days(source, 3, Changes(later=0.1, new=0.05, changed=0.04, removed=0.02), seed=1)
    catalogs = [set(day.items["item_id"]) for day in days]
    assert [len(catalog) for catalog in catalogs] == [90, 93, 96]  # without ten that come; two of them leave each day
    for (before, after), day in zip(pairwise(catalogs), days[1:], strict=True):
        assert after - before == {*day.new_items}
        assert len(day.new_items) == 5
        assert len(before - after) == 2
    assert [sum(number > 0 for number in day.texts.values()) for day in days] == [0, 4, 8]
    for number, day in enumerate(days):
        assert set(day.log["item_id"]) <= set(day.items["item_id"])
        inside = source.log["item_id"].isin(catalogs[number]) & (source.log["timestamp"] < ROWS * (0.8 + 0.1 * number))
        assert len(day.log) == inside.sum()
        texts = dict(zip(day.items["item_id"], day.items["text"], strict=True))
        for item, changed in day.texts.items():
            assert texts[item] == (f"text {item}, revised edition {changed}" if changed else f"text {item}")
    source.write(tmp_path / "day", days[1].items, days[1].log)
    assert parquet(tmp_path / "day").items["text"].tolist() == days[1].items["text"].tolist()


def test_more_changes_than_items_are_refused(source: Source) -> None:
    with pytest.raises(SystemExit, match="more items than there are"):
        cut_days(source, 11, Changes(later=0.01, new=0.05, changed=0.05, removed=0.01), seed=1)
