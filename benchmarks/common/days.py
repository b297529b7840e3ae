"""Days of a shop, made from one catalog and one log: items come and go, texts change, interactions come in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from alphafuse.storage.filesystem.folder import resolve

MOVIELENS = "package://recbole/dataset_example/ml-100k/ml-100k"


@dataclass(frozen=True)
class Source:
    """A catalog and a log.

    Attributes:
        items, log: all rows, with ids as texts.
        item, text, time: names of columns; `item` in both tables.
        files: names of the files of catalog and log that `write` writes.
    """

    items: pd.DataFrame
    log: pd.DataFrame
    item: str
    text: str
    time: str
    files: tuple[str, str]

    @property
    def settings(self) -> list[str]:
        """Settings of a configuration that reads what `write` writes."""
        return [f"data.{part}.path={file}" for part, file in zip(("catalog", "interactions"), self.files, strict=True)]

    def write(self, folder: Path, items: pd.DataFrame, log: pd.DataFrame) -> None:
        """Write a catalog and a log with the columns of this source's."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in zip(self.files, (items, log), strict=True):
            if name.endswith(".parquet"):
                table.to_parquet(folder / name)
            else:
                table.to_csv(folder / name, sep="\t", index=False)


@dataclass
class Day:
    """The catalog and the log of a day.

    Attributes:
        new_items: ids that the day before does not have.
        texts: number of the text of each item of its catalog, by id: 0 before its first change.
    """

    items: pd.DataFrame
    log: pd.DataFrame
    new_items: list[str] = field(default_factory=list)
    texts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Changes:
    """Changes that each day but the first one brings, as shares of the whole log and of the whole catalog."""

    later: float
    new: float
    changed: float
    removed: float


def movielens() -> Source:
    """MovieLens-100K, which has real times."""
    items, log = (pd.read_csv(resolve(f"{MOVIELENS}.{kind}"), sep="\t", dtype=str) for kind in ("item", "inter"))
    log["timestamp:float"] = log["timestamp:float"].astype(float)
    columns = ("item_id:token", "movie_title:token_seq", "timestamp:float")
    return Source(items, log, *columns, files=("ml.item", "ml.inter"))


def parquet(folder: Path) -> Source:
    """A folder with items.parquet (item_id, text) and interactions.parquet (user_id, item_id, timestamp)."""
    files = ("items.parquet", "interactions.parquet")
    items, log = (pd.read_parquet(folder / name) for name in files)
    for table in (items, log):
        table["item_id"] = table["item_id"].astype(str)
    return Source(items, log, "item_id", "text", "timestamp", files)


def cut_days(source: Source, days: int, changes: Changes, seed: int) -> list[Day]:
    """Cut a catalog and a log into days, each of which holds what the day before holds, but for what it removes.

    Interactions come by their times, items at random, with all of their interactions; other items, drawn at random,
    leave with all of theirs, or get another text.
    """
    ids = source.items[source.item].to_numpy()
    generator = np.random.default_rng(seed)
    shares = (changes.new, changes.removed, changes.changed)
    counts = [round(share * len(ids)) for share in shares]
    if sum(counts) * (days - 1) > len(ids):
        raise SystemExit("the days change more items than there are")
    drawn = iter(np.split(generator.permutation(ids), np.cumsum(counts * (days - 1))))
    coming, leaving, changing = zip(*[(next(drawn), next(drawn), next(drawn)) for _ in range(days - 1)], strict=True)
    found = []
    for day in range(1, days + 1):
        absent = np.concatenate([*coming[day - 1 :], *leaving[: day - 1], ids[:0]])
        items = source.items[~np.isin(ids, absent)].copy()
        changed = {item: number for number, part in enumerate(changing[: day - 1], start=1) for item in part}
        numbers = items[source.item].map(changed).fillna(0).astype(int)
        items[source.text] = [
            text_of_day(text, number) for text, number in zip(items[source.text], numbers, strict=True)
        ]
        last = source.log[source.time].quantile(1 - changes.later * (days - day))
        early = source.log[source.time] <= last
        log = source.log[early & ~source.log[source.item].isin(absent)]
        new = sorted(coming[day - 2]) if day > 1 else []
        found.append(Day(items, log, new, dict(zip(items[source.item], numbers, strict=True))))
    return found


def text_of_day(text: str, number: int) -> str:
    """The text of an item that was changed on a day; 0: that of the catalog."""
    return f"{text}, revised edition {number}" if number else text
