"""Evaluates a model on the targets of a split: ranks over the full catalog, metrics, slices.

Users are read group by group, and their queries are ranked in batches. Every rank computes the hidden states of its
part of a batch and gathers those of the others, so that ranks of targets and metrics are the same on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from alphafuse.config import EvaluateConfig
from alphafuse.data.kept_users import UserGroups, chosen_within
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.data.sequences import Sequences, Split
from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.row_partition import RowPartition
from alphafuse.errors import DataError
from alphafuse.evaluation.example_queries import ExampleQueries
from alphafuse.evaluation.ranking.catalog_ranking import CatalogRanking, Queries
from alphafuse.evaluation.ranking.popularity_ranking import PopularityRanking
from alphafuse.evaluation.ranking.seen_items import SeenItems
from alphafuse.evaluation.ranking_metrics import CatalogUse, ranking_metrics, tail_items
from alphafuse.evaluation.ranks import RankedTargets
from alphafuse.evaluation.scorer import HistoryReader, Scorer
from alphafuse.evaluation.shuffled_histories import shuffled
from alphafuse.storage.filesystem.read_ahead import read_ahead

Similarity = Literal["cosine", "dot"]
Progress = Callable[[int, int], None]


def validation_metrics(
    model: Scorer,
    sequences: UserGroups,
    split: Split,
    config: EvaluateConfig,
    communicator: Communicator,
    similarity: Similarity,
    chosen: np.ndarray | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Compute HR, NDCG and MRR at all cutoffs over the targets of a split. A collective.

    Args:
        chosen: int64 [targets], ascending: positions, among all targets of the split, of those to evaluate; None: all.
        progress: called with (users done, users in all) after each batch.

    Raises:
        DataError: the split has no targets.
    """
    answers = _rank_targets(model, sequences, split, config, communicator, similarity, 0, progress, chosen)
    return ranking_metrics(np.concatenate([answer.ranked.ranks for answer in answers]), config.cutoffs)


def evaluate(
    model: Scorer,
    sequences: SequenceStore,
    popularity: np.ndarray,
    recent_popularity: np.ndarray | None,
    held_out: np.ndarray,
    config: EvaluateConfig,
    communicator: Communicator,
    similarity: Similarity,
    progress: Progress,
    record: Callable[[RankedTargets], None],
) -> dict[str, Any]:
    """Evaluate the test targets: the contents of `evaluation/metrics.json`. A collective.

    Args:
        popularity: [items], number of training interactions.
        recent_popularity: [items], number of the recent ones; None where nothing is known of their times.
        held_out: [items] of bool, True for items held out of training on purpose.
        progress: called with (users done, users in all) after each batch.
        record: called with the answers of each batch, equal on every rank.

    Returns:
        `overall` metrics; `slices` by target item (`head`, `tail`: the less popular `tail_share` of the catalog,
        `cold`: without training interactions, `held_out`: part of the cold, where items are held
        out), by user (`head`, `tail`: up to `tail_user_length` interactions) and by history (`short`, `long`);
        `catalog`: coverage and popularity of the top lists; `baselines`: `overall` and `slices` of rankings by
        `popularity` and `recent_popularity`, under the same rules; `shuffled_histories`, where they are asked for:
        `overall` and `slices` of the model after histories in random order; `examples`, see `ExampleQueries`.

    Raises:
        DataError: there are no test targets.
    """
    tail = tail_items(popularity, config.tail_share)
    use = CatalogUse(popularity, tail, config.cutoffs)
    baselines = {"popularity": PopularityRanking(popularity)}
    if recent_popularity is not None:
        baselines["recent_popularity"] = PopularityRanking(recent_popularity)
    baseline_ranks: dict[str, list[np.ndarray]] = {name: [] for name in baselines}
    kept: list[tuple[np.ndarray, ...]] = []
    shuffled_ranks: list[np.ndarray] = []
    examples = ExampleQueries()
    top_k, timer = max(config.cutoffs), communicator.timer
    answers = _rank_targets(model, sequences, "test", config, communicator, similarity, top_k, progress)
    for answer in timer.steps(answers):
        use.add(answer.items)
        record(answer.ranked)
        for name, baseline in baselines.items():
            baseline_ranks[name].append(baseline.ranks(answer.ranked.targets, answer.excluded))
        # Only these are kept: user ids and top lists would fill the memory.
        examples.add(answer.sequences, answer.users, answer.ranked, answer.items)
        kept.append((answer.ranked.ranks, answer.ranked.targets, answer.ranked.positions, answer.lengths))
        if answer.shuffled is not None:
            shuffled_ranks.append(answer.shuffled)
        timer.end_step()
    ranks, targets, positions, lengths = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    items = {"head": ~tail, "tail": tail, "cold": popularity == 0}
    if held_out.any():
        items["held_out"] = held_out

    def measured(ranks: np.ndarray) -> dict[str, Any]:
        overall = ranking_metrics(ranks, config.cutoffs)
        return {"overall": overall, "slices": _slice_metrics(ranks, targets, positions, lengths, items, config)}

    return {
        "split": "test",
        "similarity": similarity,
        "exclude_seen": config.exclude_seen,
        "queries": len(ranks),
        "num_items": len(popularity),
        **measured(ranks),
        "catalog": {
            **use.result(),
            "target_average_popularity": float(popularity[targets].mean()),
            "target_tail_share": float(tail[targets].mean()),
        },
        "baselines": {name: measured(np.concatenate(parts)) for name, parts in baseline_ranks.items()},
        "examples": examples.found,
        **({"shuffled_histories": measured(np.concatenate(shuffled_ranks))} if shuffled_ranks else {}),
    }


def _slice_metrics(
    ranks: np.ndarray,
    targets: np.ndarray,
    positions: np.ndarray,
    lengths: np.ndarray,
    items: dict[str, np.ndarray],
    config: EvaluateConfig,
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Metrics of each slice; `items` are [items] of bool, by the name of the slice. None stands for NaN, the metrics of
    an empty slice: JSON has no NaN."""
    slices = {
        "items": {name: members[targets] for name, members in items.items()},
        "users": {"head": lengths > config.tail_user_length, "tail": lengths <= config.tail_user_length},
        "histories": {"short": positions <= config.short_history, "long": positions > config.short_history},
    }
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for kind, members in slices.items():
        found[kind] = {}
        for name, chosen in members.items():
            metrics = ranking_metrics(ranks[chosen], config.cutoffs)
            numbers = {metric: None if np.isnan(value) else value for metric, value in metrics.items()}
            found[kind][name] = {"queries": int(chosen.sum()), **numbers}
    return found


@dataclass(frozen=True)
class _Answer:
    """Answers to a batch of queries.

    Attributes:
        sequences, users: [queries], the queries' users, by their numbers within the sequences.
        ranked: targets and their ranks.
        items: [queries, top_k], the best items.
        lengths: [queries], number of all interactions of the query's user.
        excluded: what was left out, see `Queries.excluded`, on the CPU.
        shuffled: [queries], the targets' ranks after histories in random order, where they are asked for.
    """

    sequences: Sequences
    users: np.ndarray
    ranked: RankedTargets
    items: np.ndarray
    lengths: np.ndarray
    excluded: torch.Tensor | None
    shuffled: np.ndarray | None


def _rank_targets(
    model: Scorer,
    store: UserGroups,
    split: Split,
    config: EvaluateConfig,
    communicator: Communicator,
    similarity: Similarity,
    top_k: int,
    progress: Progress | None,
    chosen: np.ndarray | None = None,
) -> Iterator[_Answer]:
    """Yield answers to the targets of a split, batch by batch, in the order of the users. `progress` is called after
    the caller has handled a batch."""
    with communicator.timer.span("load"):
        ranking, total_users = catalog_ranking(model, communicator, similarity), int(store.users.sum())
    first_user, first_target, answered = 0, 0, 0
    shuffles = config.shuffle_histories and split == "test"
    for sequences in read_ahead(store.groups()):
        all_users, all_positions = sequences.targets(split)
        if chosen is not None:
            inside = chosen_within(chosen, first_target, len(all_users))
            first_target += len(all_users)
            all_users, all_positions = all_users[inside], all_positions[inside]
        seen = SeenItems(sequences, all_users) if config.exclude_seen else None
        for start in range(0, len(all_users), config.query_batch):
            batch = slice(start, start + config.query_batch)
            users, positions = all_users[batch], all_positions[batch]
            hidden = gather_hidden_states(model, sequences, users, positions, communicator)
            targets = sequences.items[sequences.starts[users] + positions]
            excluded = None if seen is None else seen.before(users, positions)
            left_out = None if excluded is None else excluded.to(hidden.device)
            queries = Queries(hidden, torch.from_numpy(targets).to(hidden.device), left_out)
            ranked, after_shuffle = ranking.rank(queries, top_k), None
            if shuffles:
                hidden = gather_hidden_states(model, sequences, users, positions, communicator, answered)
                after_shuffle = ranking.rank(replace(queries, hidden=hidden), 0).ranks.cpu().numpy()
            names, ranks = sequences.user_ids.take(pa.array(users)), ranked.ranks.cpu().numpy()
            answers = RankedTargets(names, positions, targets, ranks)
            lengths = sequences.starts[users + 1] - sequences.starts[users]
            yield _Answer(sequences, users, answers, ranked.items.cpu().numpy(), lengths, excluded, after_shuffle)
            answered += len(users)
            if progress is not None:
                progress(first_user + int(users[-1]) + 1, total_users)
        first_user += sequences.num_users
    if not answered:
        raise DataError(f"the split has no {split} targets; check data.split")


def catalog_ranking(model: Scorer, communicator: Communicator, similarity: Similarity) -> CatalogRanking:
    """Make the ranking of all items by a model."""
    return CatalogRanking(model.item_vectors(), model.first_row, similarity, communicator)


def gather_hidden_states(
    model: HistoryReader,
    sequences: Sequences,
    users: np.ndarray,
    positions: np.ndarray,
    communicator: Communicator,
    shuffled_from: int | None = None,
) -> torch.Tensor:
    """Hidden states of the histories `items[:position]` of users: [queries, hidden_dim], equal on every rank.

    Each rank computes the states of its share of the queries. A collective.

    Args:
        shuffled_from: number of the first query in its evaluation, for histories in random order.
    """
    start, stop = RowPartition(len(users), communicator.world_size).range(communicator.rank)
    histories = sequences.histories(users[start:stop], positions[start:stop], model.history_length)
    if shuffled_from is not None:
        histories = shuffled(histories, shuffled_from + start)
    with communicator.timer.span("hidden"):
        states = model.hidden_states(torch.from_numpy(histories))
    return communicator.all_gather_rows(states)[0]
