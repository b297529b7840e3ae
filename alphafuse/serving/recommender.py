"""A trained model as an object: load an export, then recommend, score and compare items, by their ids.

Needs neither Ray nor DeepSpeed nor the workspace. The ranking, its rule for ties and the treatment of unknown items,
long histories and seen items are those of the stage `recommend`.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from alphafuse.data.frames import as_given
from alphafuse.data.sequences import Sequences
from alphafuse.data.users import Histories
from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.devices import full_precision
from alphafuse.errors import DataError, WorkspaceError
from alphafuse.evaluation.evaluator import gather_hidden_states
from alphafuse.evaluation.ranking.catalog_ranking import CatalogRanking, Queries, Ranking
from alphafuse.evaluation.ranking.exclusions import with_items
from alphafuse.evaluation.ranking.seen_items import SeenItems
from alphafuse.evaluation.ranking.top_lists import NO_ITEM
from alphafuse.evaluation.recommendations import Recommended, rank_users, recommended, recommended_lists
from alphafuse.extras import require_package
from alphafuse.registry.version import Version
from alphafuse.serving.bounded_ranking import BoundedRanking
from alphafuse.serving.export_files import Export
from alphafuse.serving.exported_items import ExportedItems
from alphafuse.serving.histories import GivenHistories, read_histories, read_ids
from alphafuse.serving.history_model import HistoryModel
from alphafuse.storage.manifest import content_fingerprint

QUERY_BATCH = 512
"""Histories ranked at a time."""
TILE = (128, 4096)
"""Number of histories and items that are scored at a time: the memory of the stages' tiles, but wider ones, since every
tile lets the threads wait for each other, and most callers have few histories."""
Search = Literal["exact", "approximate"]
"""Ways to find the best items."""


def load(path: str | os.PathLike[str], search: Search = "exact") -> Recommender:
    """Load a trained model.

    Args:
        path: folder or URI of an export, or of a workspace that has one.
        search: `exact` scores every item; `approximate` asks the index of the export (`export.index`), which is faster
            for large catalogs and misses some items.

    Raises:
        ConfigError: the package of the index is missing.
        WorkspaceError: there is no export or no index, it is damaged, or another version of alphafuse wrote it.
    """
    return Recommender(Export.find(path), search)


def load_version(version: Version) -> Recommender:
    """Load a version of a registry.

    Raises:
        WorkspaceError: its export is not there, is damaged, or has been made again since.
    """
    version.require_whole()
    recommender = load(version.export)
    if recommender.fingerprint != version.fingerprint:
        raise WorkspaceError(f"{version.export} was made again while it was read.", "Try again")
    return recommender


class Recommender:
    """A trained model. Threads may share it: their calls take turns, since each of them uses all processors.

    Item ids go in as strings or integers and come out as strings. *Histories* are lists of lists of item ids, oldest
    first, also as a column of pandas or pyarrow; or a table with the columns `user_id` and `history`, of pandas,
    pyarrow or another package that speaks Arrow. Items that the catalog does not know are left out of histories, with
    a warning; everything else that is asked about an unknown item is an error.

    Items that `alphafuse add-items` has removed are never recommended, and count as unknown but in histories.

    Args:
        export: the export with its deltas, all of which is checked.
        search: see `load`.

    Attributes:
        num_items: number of items in the catalog.
        item_ids: ids of all items, in the order of the item indices.
        history_length: number of a history's latest items that the model reads; earlier ones count as seen, too.
        similarity: the score, "cosine" or "dot".
        fingerprint: SHA-256 over the files of the export, as `Version.fingerprint`: vectors of histories and of items
            fit together if they come from exports with the same one.

    Raises:
        WorkspaceError: the export is damaged.
    """

    def __init__(self, export: Export, search: Search = "exact") -> None:
        removed = export.removed()
        self._items, self._removed = ExportedItems(export.names(), removed.tolist()), torch.from_numpy(removed)
        vectors, lengths = export.vectors()
        self._vectors = vectors
        self._model = HistoryModel(export, vectors, lengths)
        # Vectors and states have unit length already where the score is the cosine.
        self._catalog = CatalogRanking(vectors, 0, "dot", Communicator(), TILE)  # for ranks of items, not for lists
        self._ranking: Ranking = BoundedRanking(vectors)
        if search == "approximate":
            require_package("usearch", "approximate search")
            self._ranking = export.index(vectors)
        self._lock = threading.Lock()
        self.item_ids: pa.Array = self._items.present()
        self.num_items = len(self.item_ids)
        self.history_length = self._model.history_length
        self.similarity = export.model.similarity
        self.fingerprint = content_fingerprint(export.require())

    def __contains__(self, item_id: object) -> bool:
        """Tell whether the catalog has an item with this id."""
        return str(item_id) in self._items

    def recommend(self, histories: Any, k: int = 10, exclude_seen: bool = True) -> Any:
        """Find the best items after histories.

        Args:
            k: number of items for each history.
            exclude_seen: leave out all items that the history holds.

        Returns:
            Of lists a list of `Recommended` for each history, best first; of a table one of the same kind (pandas, else
            pyarrow) with the columns user_id, item_ids, titles and scores. Nothing is recommended after a history
            without any known item.

        Raises:
            DataError: `k` is no positive number, or the histories cannot be read.
        """
        k = self._list_length(k)
        given = read_histories(histories)
        known = self._known(given)
        items = np.full((len(given.lengths), k), NO_ITEM)
        scores = np.full(items.shape, np.nan, np.float32)
        if len(known.users):
            with self._lock:
                best = rank_users(
                    self._model, self._ranking, known, k, exclude_seen, QUERY_BATCH, Communicator(), self._removed
                )
            items[known.users], scores[known.users] = best
        if given.user_ids is None:
            return self._lists(items, scores)
        lists = recommended_lists(self._items.names(items), items, scores)
        plain = {"item_ids": pa.string(), "titles": pa.string(), "scores": pa.float32()}
        columns = {name: values.cast(pa.list_(plain[name])) for name, values in lists.items()}
        return as_given(pa.table({"user_id": given.user_ids, **columns}), histories)

    def similar_items(self, item_ids: Any, k: int = 10) -> list[list[Recommended]]:
        """Find the items whose vectors are most similar to those of given items, by the score of the model.

        Returns:
            For each item, the others, best first.

        Raises:
            DataError: an item is not in the catalog, or `k` is no positive number.
        """
        k = self._list_length(k)
        items = self._indices(item_ids)
        queries = torch.arange(len(items))
        itself = torch.stack([torch.from_numpy(items), queries, queries + 1])
        excluded = with_items(itself, self._removed, len(items))
        with self._lock, torch.no_grad():
            ranked = self._ranking.rank(Queries(self._vectors[torch.from_numpy(items)], excluded=excluded), k)
        return self._lists(ranked.items.numpy(), ranked.scores.numpy())

    def item_vectors(self, item_ids: Any) -> np.ndarray:
        """Vectors of items as they are scored, of unit length for the cosine: float32 [items, dim].

        Raises:
            DataError: an item is not in the catalog.
        """
        vectors: np.ndarray = self._vectors[torch.from_numpy(self._indices(item_ids))].numpy()
        return vectors

    def history_vectors(self, histories: Any) -> np.ndarray:
        """Vectors of histories, whose inner products with `item_vectors` are the scores: float32 [histories, dim]; NaN
        for histories without any known item.

        Raises:
            DataError: the histories cannot be read.
        """
        given = read_histories(histories)
        known = self._known(given)
        vectors = np.full((len(given.lengths), self._vectors.shape[1]), np.nan, np.float32)
        with self._lock:
            for part in known.split(QUERY_BATCH):
                states = gather_hidden_states(self._model, part.sequences, part.users, part.positions, Communicator())
                vectors[part.users] = states.numpy()
        return vectors

    def score(self, histories: Any, item_ids: Any) -> np.ndarray:
        """Scores of items after histories: float32 [histories, items]; NaN after a history without any known item.

        Raises:
            DataError: an item is not in the catalog, or the histories cannot be read.
        """
        items, states = torch.from_numpy(self.item_vectors(item_ids)), torch.from_numpy(self.history_vectors(histories))
        with self._lock, full_precision():
            scores: np.ndarray = (states @ items.T).numpy()
        return scores

    def ranks(self, histories: Any, item_ids: Any, exclude_seen: bool = True) -> np.ndarray:
        """Ranks of one item after each history among all items: int64 [histories], best is 1; 0 where the catalog has
        no such item, or the history holds no known item.

        Args:
            item_ids: [histories].
            exclude_seen: leave out of the ranking all items that the history holds, but for the item itself.

        Raises:
            DataError: the histories cannot be read, or are not as many as the items.
        """
        given, wanted = read_histories(histories), self._items.present_indices(read_ids(item_ids))
        if len(wanted) != len(given.lengths):
            raise DataError(f"there are {len(given.lengths)} histories, but {len(wanted)} items: give one for each")
        known, ranks = self._known(given), np.zeros(len(wanted), np.int64)
        asked = Histories(known.sequences, known.users[wanted[known.users] >= 0])
        seen = SeenItems(asked.sequences, asked.users)
        with self._lock:
            for part in asked.split(QUERY_BATCH):
                states = gather_hidden_states(self._model, part.sequences, part.users, part.positions, Communicator())
                excluded = seen.before(part.users, part.positions) if exclude_seen else None
                excluded = with_items(excluded, self._removed, len(part.users))
                queries = Queries(states, torch.from_numpy(wanted[part.users]), excluded)
                ranks[part.users] = self._catalog.rank(queries).ranks.numpy()
        return ranks

    def find_items(self, pieces: Sequence[str]) -> list[str]:
        """Ids of the items of a hand-written list of titles or ids, which was cut at its commas.

        Raises:
            DataError: a piece is neither title nor id; the message suggests similar titles.
        """
        ids: list[str] = self._items.ids.take(pa.array(self._items.find(pieces))).to_pylist()
        return ids

    def _known(self, given: GivenHistories) -> Histories:
        """The histories with their known items; those without any are not among the users."""
        index = self._items.indices(given.items)
        known = index >= 0
        if not known.all():
            warnings.warn(
                f"{(~known).sum()} of {len(known)} items of the histories are not in the catalog and were left out",
                stacklevel=3,
            )
        owners = np.repeat(np.arange(len(given.lengths)), given.lengths)
        lengths = np.bincount(owners[known], minlength=len(given.lengths))
        starts, none = np.cumsum([0, *lengths]), np.zeros(len(lengths), np.int64)
        names = pa.chunked_array([pa.nulls(len(lengths), pa.string())])
        return Histories(Sequences(index[known], starts, none, none, names), np.flatnonzero(lengths))

    def _indices(self, item_ids: Any) -> np.ndarray:
        """Indices of items, int64 [items], all of which the catalog must have."""
        ids = read_ids(item_ids)
        items = self._items.present_indices(ids)
        if (items < 0).any():
            unknown = ids[int(np.argmin(items))].as_py()
            raise DataError(f"the catalog has no item {unknown!r}; `ITEM in recommender` tells whether it has one")
        return items

    def _list_length(self, k: int) -> int:
        """Number of items of a list: `k`, and no more than there are.

        Raises:
            DataError: `k` is no whole number from 1 on.
        """
        if not isinstance(k, int | np.integer) or k < 1:
            raise DataError(f"k, the number of items of a list, must be a whole number from 1 on, not {k!r}")
        return min(int(k), self.num_items)

    def _lists(self, items: np.ndarray, scores: np.ndarray) -> list[list[Recommended]]:
        table = pa.table(recommended_lists(self._items.names(items), items, scores))
        return [recommended(row) for row in table.to_pylist()]
