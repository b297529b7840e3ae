"""The recommend stage: top items for many users into Parquet, or for one history written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from alphafuse.collectives import Communicator
from alphafuse.config import Config
from alphafuse.data.catalog_lookup import find_items, item_names
from alphafuse.data.importers.source import find_sources
from alphafuse.data.users import Histories, single_history, test_users, users_of
from alphafuse.evaluation.evaluator import catalog_ranking, gather_hidden_states, seen_items
from alphafuse.evaluation.ranking import NO_ITEM, CatalogRanking, Queries
from alphafuse.events import Event, Listener, ignore
from alphafuse.training.model import ScoringModel, load_trained
from alphafuse.workspace import Artifact, Workspace, fingerprint
from jobs.runtime import connected
from jobs.worker_group import run_workers

USERS_PER_SHARD = 10_000
EXAMPLES = 6


@dataclass(frozen=True)
class Recommended:
    """One recommended item; a higher score is better."""

    item_id: str
    title: str
    score: float


def run(config: Config, workspace: Workspace, listen: Listener) -> None:
    """Write the artefact `recommendations`: user_id, item_ids, titles and scores (lists, best first)."""
    artifact = workspace.artifact("recommendations")
    inputs = _inputs(config, workspace)
    if artifact.is_committed(inputs):
        return
    arguments = {"config": config, "workspace": workspace, "wanted": fingerprint(inputs)}
    counts = run_workers(_recommend_on_worker, config.train, arguments, listen)
    for reason, count in counts.items():
        if count:
            listen(Event("recommend", "warning", {"message": f"{count} left out: {reason.replace('_', ' ')}"}))
    files = artifact.committed_files(fingerprint(inputs)).values()
    users = sum(file.rows for file in files)
    examples = next(file.details["examples"] for file in files if file.first_row == 0)
    details = {"users": users, "top_k": config.recommend.top_k, "left_out": counts, "examples": examples}
    artifact.commit(inputs, details)
    listen(Event("recommend", "finished", {"users": users}))


def recommend_for_history(
    config: Config, workspace: Workspace, names: Sequence[str], top_k: int | None = None
) -> list[Recommended]:
    """The best items after a history of titles or item ids, oldest first (see `find_items`).

    Raises:
        DataError: a name is neither title nor id of an item.
        WorkspaceError: there is no trained model.
    """
    workspace.artifact("model").require()
    items = find_items(workspace.artifact("catalog"), names)
    arguments: dict[str, Any] = {"config": config, "workspace": workspace, "items": items}
    arguments["top_k"] = top_k or config.recommend.top_k
    if config.ray.address is None:
        # All shards would lie on this machine anyway: one process holds them, without the wait for workers.
        communicator, device = Communicator(), torch.device("cpu")
        return _recommend_history_on_worker(**arguments, communicator=communicator, device=device, listen=ignore)
    with connected(config.ray):
        return run_workers(_recommend_history_on_worker, config.train, arguments, ignore)


def _inputs(config: Config, workspace: Workspace) -> dict[str, Any]:
    users = config.recommend.users
    return {
        "model": workspace.artifact("model").require().fingerprint,
        "sequences": workspace.artifact("sequences").require().fingerprint,
        "similarity": config.similarity,
        "recommend": config.recommend.model_dump(mode="json", exclude={"users"}),
        "users": None if users is None else [s.identity for s in find_sources("recommend.users", users, ".")],
    }


def _recommend_on_worker(
    *,
    config: Config,
    workspace: Workspace,
    wanted: str,
    communicator: Communicator,
    device: torch.device,
    listen: Listener,
) -> dict[str, int]:
    """Every rank ranks its items for all users; the shards of the result are written in turns."""
    artifact = workspace.artifact("recommendations")
    written = artifact.committed_files(wanted)
    communicator.barrier()  # every rank has seen the same files before any is written
    users = config.recommend.users
    histories = (
        test_users(workspace) if users is None else users_of(workspace, find_sources("recommend.users", users, "."))
    )
    model = load_trained(config, workspace, communicator, device)
    ranking = catalog_ranking(model, config.evaluate, communicator, config.similarity)
    for shard, start in enumerate(range(0, len(histories.users), USERS_PER_SHARD)):
        name = f"part-{shard:05d}.parquet"
        chunk = Histories(histories.sequences, histories.users[start : start + USERS_PER_SHARD], {})
        if name not in written:
            items, scores = _rank_users(config, model, chunk, config.recommend.top_k, ranking, communicator)
            if communicator.rank == shard % communicator.world_size:
                _write_shard(workspace, artifact, name, wanted, start, chunk, items, scores)
        if communicator.rank == 0:
            done, total = start + len(chunk.users), len(histories.users)
            listen(Event("recommend", "progress", {"done": done, "total": total, "unit": "users"}))
    communicator.barrier()
    return histories.counts


def _recommend_history_on_worker(
    *,
    config: Config,
    workspace: Workspace,
    items: list[int],
    top_k: int,
    communicator: Communicator,
    device: torch.device,
    listen: Listener,
) -> list[Recommended]:
    model = load_trained(config, workspace, communicator, device)
    ranking = catalog_ranking(model, config.evaluate, communicator, config.similarity)
    best, scores = _rank_users(config, model, single_history(items), top_k, ranking, communicator)
    names = _Names(workspace.artifact("catalog"), best)
    return [
        Recommended(*names[item], float(score)) for item, score in zip(best[0], scores[0], strict=True) if item >= 0
    ]


def _rank_users(
    config: Config,
    model: ScoringModel,
    histories: Histories,
    top_k: int,
    ranking: CatalogRanking,
    communicator: Communicator,
) -> tuple[np.ndarray, np.ndarray]:
    """Best items and their scores [users, top_k], equal on every rank. A collective."""
    items, scores = [], []
    sequences, batch_size = histories.sequences, config.evaluate.query_batch
    for start in range(0, len(histories.users), batch_size):
        users = histories.users[start : start + batch_size]
        positions = histories.positions[start : start + batch_size]
        hidden = gather_hidden_states(model, sequences, users, positions, communicator)
        seen = seen_items(sequences, users, positions).to(hidden.device) if config.recommend.exclude_seen else None
        ranked = ranking.rank(Queries(hidden, excluded=seen), top_k)
        items.append(ranked.items.cpu().numpy())
        scores.append(ranked.scores.cpu().numpy())
    return np.concatenate(items), np.concatenate(scores)


class _Names:
    """Id and title of some items."""

    def __init__(self, catalog: Artifact, *items: np.ndarray) -> None:
        self._table = item_names(catalog, np.concatenate([part.ravel() for part in items]))
        self._index = self._table["item_index"].to_numpy()

    def __getitem__(self, item: int) -> tuple[str, str]:
        row = int(np.searchsorted(self._index, item))
        return self._table["item_id"][row].as_py(), self._table["title"][row].as_py()

    def lists(self, items: np.ndarray, column: str) -> pa.ListArray:
        """Lists of a column's values for [users, top_k] item indices; places without an item are left out."""
        rows = np.searchsorted(self._index, items[items != NO_ITEM])
        ends = np.cumsum([0, *(items != NO_ITEM).sum(axis=1)])
        return pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()), self._table[column].combine_chunks().take(pa.array(rows))
        )


def _texts(catalog: Artifact, items: np.ndarray) -> dict[int, str]:
    """What the language model was given of some items."""
    table = item_names(catalog, items, ["text"])
    return dict(zip(table["item_index"].to_pylist(), table["text"].to_pylist(), strict=True))


def _write_shard(
    workspace: Workspace,
    artifact: Artifact,
    name: str,
    wanted: str,
    first_row: int,
    histories: Histories,
    items: np.ndarray,
    scores: np.ndarray,
) -> None:
    sequences = histories.sequences
    shown = [sequences.of(user)[-EXAMPLES:] for user in histories.users[:EXAMPLES]] if first_row == 0 else []
    names = _Names(workspace.artifact("catalog"), items, *shown)
    ends = np.cumsum([0, *(items != NO_ITEM).sum(axis=1)])
    table = pa.table(
        {
            "user_id": sequences.user_ids.take(pa.array(histories.users)),
            "item_ids": names.lists(items, "item_id"),
            "titles": names.lists(items, "title"),
            "scores": pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(scores[items != NO_ITEM])),
        }
    )
    texts = _texts(workspace.artifact("catalog"), items[: len(shown)])
    examples = [
        {
            "user_id": table["user_id"][row].as_py(),
            "history": [names[item][1] for item in history],
            "recommended": [
                {"item_id": names[item][0], "title": names[item][1], "text": texts[item], "score": float(score)}
                for item, score in zip(items[row].tolist(), scores[row], strict=True)
                if item != NO_ITEM
            ],
        }
        for row, history in enumerate(shown)
    ]
    artifact.write_table(name, table, wanted, first_row=first_row, details={"examples": examples} if shown else None)
