"""Evaluates a model on the targets of a split: ranks over the full catalog, metrics, slices.

Users are read group by group, their queries go through in batches; every rank computes the hidden states of its part
of a batch and gets those of the others, so all ranks end with the same ranks and the same metrics.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from alphafuse.collectives import Communicator
from alphafuse.config import EvaluateConfig
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.data.sequences import Sequences, Split
from alphafuse.errors import DataError
from alphafuse.evaluation.metrics import CatalogUse, ranking_metrics, tail_items
from alphafuse.evaluation.ranking import CatalogRanking, Queries
from alphafuse.items.partition import RowPartition
from alphafuse.read_ahead import read_ahead
from alphafuse.training.model import ScoringModel

Similarity = Literal["cosine", "dot"]
Progress = Callable[[int, int], None]


def validation_metrics(
    model: ScoringModel,
    sequences: SequenceStore,
    split: Split,
    config: EvaluateConfig,
    communicator: Communicator,
    similarity: Similarity,
    chosen: np.ndarray | None = None,
) -> dict[str, float]:
    """HR, NDCG and MRR at all cutoffs over the targets of a split. A collective.

    Args:
        chosen: int64 [targets], ascending: which of the targets count, by their place among all; None: all.

    Raises:
        DataError: the split has no targets.
    """
    answers = list(_rank_targets(model, sequences, split, config, communicator, similarity, 0, chosen))
    return ranking_metrics(np.concatenate([answer.ranks for answer in answers]), config.cutoffs)


def evaluate(
    model: ScoringModel,
    sequences: SequenceStore,
    popularity: np.ndarray,
    config: EvaluateConfig,
    communicator: Communicator,
    similarity: Similarity,
    progress: Progress,
) -> dict[str, Any]:
    """Everything that `evaluation/metrics.json` says about the test targets. A collective.

    Args:
        popularity: [items], training interactions.
        progress: called with (users done, users in all) after each batch.

    Returns:
        `overall` metrics; `slices` by target item (`head`, `tail`: the less popular `tail_share` of the catalog,
        `cold`: without training interactions, part of the tail) and by history (`short`, `long`);
        `catalog`: coverage and popularity of the top lists.

    Raises:
        DataError: there are no test targets.
    """
    tail = tail_items(popularity, config.tail_share)
    use = CatalogUse(popularity, tail, config.cutoffs)
    kept: list[_Answer] = []
    for answer in _rank_targets(model, sequences, "test", config, communicator, similarity, max(config.cutoffs)):
        use.add(answer.items)
        kept.append(dataclasses.replace(answer, items=answer.items[:0]))  # top lists would fill the memory
        progress(answer.users_done, int(sequences.users.sum()))
    ranks = np.concatenate([answer.ranks for answer in kept])
    targets = np.concatenate([answer.targets for answer in kept])
    positions = np.concatenate([answer.positions for answer in kept])
    slices = {
        "items": {"head": ~tail[targets], "tail": tail[targets], "cold": popularity[targets] == 0},
        "histories": {"short": positions <= config.short_history, "long": positions > config.short_history},
    }
    return {
        "split": "test",
        "similarity": similarity,
        "exclude_seen": config.exclude_seen,
        "queries": len(ranks),
        "num_items": len(popularity),
        "overall": ranking_metrics(ranks, config.cutoffs),
        "slices": {
            kind: {
                name: {"queries": int(chosen.sum()), **_or_null(ranking_metrics(ranks[chosen], config.cutoffs))}
                for name, chosen in members.items()
            }
            for kind, members in slices.items()
        },
        "catalog": {
            **use.result(),
            "target_average_popularity": float(popularity[targets].mean()),
            "target_tail_share": float(tail[targets].mean()),
        },
    }


@dataclass(frozen=True)
class _Answer:
    """A batch of queries with their answers.

    Attributes:
        positions: [queries], of the target in the user's sequence, which is the length of the whole history.
        targets, ranks: [queries].
        items: [queries, top_k], the best items.
        users_done: users of the log up to the last query.
    """

    positions: np.ndarray
    targets: np.ndarray
    ranks: np.ndarray
    items: np.ndarray
    users_done: int


def _rank_targets(
    model: ScoringModel,
    store: SequenceStore,
    split: Split,
    config: EvaluateConfig,
    communicator: Communicator,
    similarity: Similarity,
    top_k: int,
    chosen: np.ndarray | None = None,
) -> Iterator[_Answer]:
    """Batch after batch of a split's targets, in the order of the users."""
    ranking = catalog_ranking(model, config, communicator, similarity)
    first_user, first_target, answered = 0, 0, False
    for sequences in read_ahead(store.groups()):
        all_users, all_positions = sequences.targets(split)
        if chosen is not None:
            low, high = np.searchsorted(chosen, [first_target, first_target + len(all_users)])
            first_target, inside = first_target + len(all_users), chosen[low:high] - first_target
            all_users, all_positions = all_users[inside], all_positions[inside]
        for start in range(0, len(all_users), config.query_batch):
            batch = slice(start, start + config.query_batch)
            users, positions = all_users[batch], all_positions[batch]
            hidden = gather_hidden_states(model, sequences, users, positions, communicator)
            targets = sequences.items[sequences.starts[users] + positions]
            seen = seen_items(sequences, users, positions).to(hidden.device) if config.exclude_seen else None
            ranked = ranking.rank(Queries(hidden, torch.from_numpy(targets).to(hidden.device), seen), top_k)
            ranks, items = ranked.ranks.cpu().numpy(), ranked.items.cpu().numpy()
            yield _Answer(positions, targets, ranks, items, first_user + int(users[-1]) + 1)
            answered = True
        first_user += sequences.num_users
    if not answered:
        raise DataError(f"the split has no {split} targets; check data.split")


def catalog_ranking(
    model: ScoringModel, config: EvaluateConfig, communicator: Communicator, similarity: Similarity
) -> CatalogRanking:
    """The ranking over all items of a model."""
    return CatalogRanking(model.item_vectors(), model.first_row, similarity, communicator)


def gather_hidden_states(
    model: ScoringModel, sequences: Sequences, users: np.ndarray, positions: np.ndarray, communicator: Communicator
) -> torch.Tensor:
    """States behind the histories `items[:position]` of users: [queries, hidden_dim], equal on every rank.

    Each rank computes those of its share of the queries. A collective.
    """
    start, stop = RowPartition(len(users), communicator.world_size).range(communicator.rank)
    histories = sequences.histories(users[start:stop], positions[start:stop], model.history_length)
    return communicator.all_gather_rows(model.hidden_states(torch.from_numpy(histories)))[0]


def seen_items(sequences: Sequences, users: np.ndarray, positions: np.ndarray) -> torch.Tensor:
    """All items before each position, as `Queries.excluded`: int64 [2, sum of positions]."""
    query = np.repeat(np.arange(len(users)), positions)
    within = np.arange(len(query)) - np.repeat(np.cumsum(positions) - positions, positions)
    return torch.from_numpy(np.stack([query, sequences.items[sequences.starts[users][query] + within]]))


def _or_null(metrics: dict[str, float]) -> dict[str, float | None]:
    """JSON knows no NaN: metrics of an empty slice are null."""
    return {name: None if np.isnan(value) else value for name, value in metrics.items()}
