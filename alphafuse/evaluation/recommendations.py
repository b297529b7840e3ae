"""Recommends top items to many users: ranks in batches, looks up names in the catalog, and makes a table.

Knows nothing of files that name users, or of where the table is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from alphafuse.data.catalog_lookup import item_names
from alphafuse.data.users import Histories
from alphafuse.distributed.communicator import Communicator
from alphafuse.evaluation.evaluator import gather_hidden_states
from alphafuse.evaluation.example_queries import HISTORY
from alphafuse.evaluation.ranking.catalog_ranking import Queries, Ranking
from alphafuse.evaluation.ranking.exclusions import with_items
from alphafuse.evaluation.ranking.seen_items import SeenItems
from alphafuse.evaluation.ranking.top_lists import NO_ITEM
from alphafuse.evaluation.scorer import HistoryReader
from alphafuse.storage.artifact import Artifact


@dataclass(frozen=True)
class Recommended:
    """One recommended item; a higher score is better."""

    item_id: str
    title: str
    score: float


class Recommendations:
    """The best items of users, with their ids and titles.

    Args:
        items: int64 [users, top_k], best first, `NO_ITEM` where fewer are left.
        scores: [users, top_k].

    Attributes:
        table: one row per user: user_id, and item_ids, titles and scores as lists, best first.
    """

    def __init__(self, catalog: Artifact, histories: Histories, items: np.ndarray, scores: np.ndarray) -> None:
        self._catalog = catalog
        self._histories = histories
        self._items = items
        lists = recommended_lists(item_names(catalog, items), items, scores)
        users = histories.sequences.user_ids.take(pa.array(histories.users))
        self.table = pa.table({"user_id": users, **lists})

    def of(self, row: int) -> list[Recommended]:
        """The best items of one user."""
        return recommended(self.table.slice(row, 1).to_pylist()[0])

    def examples(self, count: int) -> list[dict[str, Any]]:
        """The first users as plain values: `user_id`; `history`, titles of the latest items; and `recommended`, items
        with item_id, title, score and the text that the language model read."""
        sequences, users = self._histories.sequences, self._histories.users[:count]
        histories = [sequences.of(user)[-HISTORY:] for user in users]
        titles = _column(self._catalog, "title", histories)
        texts = _column(self._catalog, "text", [self._items[:count]])
        return [
            {
                "user_id": sequences.user_ids[user].as_py(),
                "history": [titles[item] for item in history.tolist()],
                "recommended": [
                    {"item_id": shown.item_id, "title": shown.title, "text": texts[item], "score": shown.score}
                    for item, shown in zip(self._items[row].tolist(), self.of(row), strict=False)
                ],
            }
            for row, (user, history) in enumerate(zip(users, histories, strict=True))
        ]


def recommended_lists(names: pa.Table, items: np.ndarray, scores: np.ndarray) -> dict[str, pa.ListArray]:
    """Make the columns `item_ids`, `titles` and `scores`, a list for each row of `items`, best first.

    Args:
        names: item_index, item_id and title of all of these items, ascending.
        items, scores: as in `Recommendations`.
    """
    there = items != NO_ITEM
    rows = pa.array(np.searchsorted(names["item_index"].to_numpy(), items[there]), pa.int32())
    ends = pa.array(np.cumsum([0, *there.sum(axis=1)]), pa.int32())
    # As dictionaries, since many users get the same item, whose title may be long.
    lists = {
        "item_ids": pa.DictionaryArray.from_arrays(rows, names["item_id"].combine_chunks()),
        "titles": pa.DictionaryArray.from_arrays(rows, names["title"].combine_chunks()),
        "scores": pa.array(scores[there]),
    }
    return {name: pa.ListArray.from_arrays(ends, values) for name, values in lists.items()}


def recommended(lists: Mapping[str, Any]) -> list[Recommended]:
    """The items of a row of `recommended_lists`, as plain values."""
    return [Recommended(*item) for item in zip(lists["item_ids"], lists["titles"], lists["scores"], strict=True)]


def rank_users(
    model: HistoryReader,
    ranking: Ranking,
    histories: Histories,
    top_k: int,
    exclude_seen: bool,
    query_batch: int,
    communicator: Communicator,
    removed: torch.Tensor | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the best items and their scores, [users, top_k] each, equal on every rank. A collective.

    Args:
        removed: int64, items that are never found; None: there are none.
    """
    items, scores = [], []
    sequences, all_positions = histories.sequences, histories.positions
    seen = SeenItems(sequences, histories.users) if exclude_seen else None
    for start in range(0, len(histories.users), query_batch):
        users, positions = (values[start : start + query_batch] for values in (histories.users, all_positions))
        hidden = gather_hidden_states(model, sequences, users, positions, communicator)
        excluded = None if seen is None else seen.before(users, positions).to(hidden.device)
        if removed is not None:
            excluded = with_items(excluded, removed.to(hidden.device), len(users))
        ranked = ranking.rank(Queries(hidden, excluded=excluded), top_k)
        items.append(ranked.items.cpu().numpy())
        scores.append(ranked.scores.cpu().numpy())
    return np.concatenate(items), np.concatenate(scores)


def _column(catalog: Artifact, name: str, items: Sequence[np.ndarray]) -> dict[int, str]:
    """A text column of some items, by item index."""
    table = item_names(catalog, np.concatenate([part.ravel() for part in items]), [name])
    return dict(zip(table["item_index"].to_pylist(), table[name].to_pylist(), strict=True))
