"""Evaluation of a tiny workspace against plain loops over users and items, on 1, 2 and 3 ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import NUM_ITEMS, NUM_USERS, tiny_config, tiny_sequences, tiny_workspace

from alphafuse.config import Config
from alphafuse.data import sequence_store
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import DataError
from alphafuse.evaluation.evaluator import evaluate, validation_metrics
from alphafuse.items.table_building import build_table
from alphafuse.storage.workspace import Workspace
from alphafuse.training.objectives.objective_building import build_objective
from alphafuse.training.scoring_model import ScoringModel


def _config(folder: Path, **evaluate: Any) -> Config:
    config = tiny_config(folder)
    settings = {"cutoffs": (1, 3), "query_batch": 4, "short_history": 2, "tail_user_length": 5, **evaluate}
    section = config.evaluate.model_copy(update=settings)
    return config.model_copy(update={"evaluate": section})


def _model(config: Config) -> ScoringModel:
    """An untrained model, since evaluation does not depend on how good the scores are."""
    workspace, communicator = Workspace(config.workspace), Communicator()
    objective = build_objective(config, workspace, communicator)
    table = build_table(config, workspace, objective.encoder, communicator, torch.device("cpu"))
    return ScoringModel(objective, table, config.model.history_length)


def _evaluate(config: Config, popularity: np.ndarray) -> tuple[dict[str, Any], dict[str, float], list[int]]:
    sequences = SequenceStore(Workspace(config.workspace))
    model, done = _model(config), []
    result = evaluate(
        model,
        sequences,
        popularity,
        None if config.evaluate.exclude_seen else popularity[::-1].copy(),
        popularity % 4 == 0,
        config.evaluate,
        Communicator(),
        config.similarity,
        lambda n, _: done.append(n),
        lambda answers: None,
    )
    validation = validation_metrics(model, sequences, "validation", config.evaluate, Communicator(), config.similarity)
    return result, validation, done


def _expected_ranks(config: Config, users: range, exclude: bool) -> list[tuple[int, int, int, list[int]]]:
    """(rank, target, history length, top three) of each target of the users, from the full list of scores."""
    model = _model(config)
    items = torch.nn.functional.normalize(model.item_vectors().double(), dim=1)
    result = []
    for user in users:
        sequence = tiny_sequences()[user]
        for position in range(1, len(sequence)):
            history = sequence[:position][-config.model.history_length :]
            state = model.hidden_states(torch.tensor([history]))[0].double()
            scores = items @ (state / state.norm())
            target = sequence[position]
            for seen in set(sequence[:position]) - {target} if exclude else ():
                scores[seen] = -math.inf
            order = sorted(range(NUM_ITEMS), key=lambda item, scores=scores: (-float(scores[item]), item))
            result.append((order.index(target) + 1, target, position, order[:3]))
    return result


def _popularity_ranks(counts: np.ndarray, users: range, exclude: bool) -> list[int]:
    """Ranks of the targets of the users among all items by their counts, from plain lists."""
    result = []
    for sequence in (tiny_sequences()[user] for user in users):
        for position in range(1, len(sequence)):
            target, seen = sequence[position], set(sequence[:position]) if exclude else set()
            ranked = sorted(range(NUM_ITEMS), key=lambda item: (-counts[item], item))
            result.append([item for item in ranked if item == target or item not in seen].index(target) + 1)
    return result


def _ranks_of_users(expected: list[tuple[int, int, int, list[int]]], wanted: Callable[[int], bool]) -> list[int]:
    """Ranks of the targets of the test users whose number of interactions is `wanted`."""
    lengths = [len(tiny_sequences()[user]) for user in range(21, 24) for _ in tiny_sequences()[user][1:]]
    return [rank for (rank, *_), length in zip(expected, lengths, strict=True) if wanted(length)]


def _with_ranks(
    expected: list[tuple[int, int, int, list[int]]], ranks: list[int]
) -> list[tuple[int, int, int, list[int]]]:
    """The same targets with other ranks."""
    return [(rank, *rest) for rank, (_, *rest) in zip(ranks, expected, strict=True)]  # type: ignore[misc]


def _means(ranks: list[int]) -> dict[str, float]:
    return {
        "hr@1": np.mean([rank <= 1 for rank in ranks]),
        "hr@3": np.mean([rank <= 3 for rank in ranks]),
        "ndcg@3": np.mean([1 / math.log2(rank + 1) if rank <= 3 else 0 for rank in ranks]),
        "mrr@3": np.mean([1 / rank if rank <= 3 else 0 for rank in ranks]),
    }


@pytest.mark.distributed
@pytest.mark.parametrize(("world_size", "exclude"), [(1, False), (2, True), (3, False)])
def test_metrics_equal_plain_loops(tmp_path: Path, world_size: int, exclude: bool) -> None:
    tiny_workspace(tmp_path)
    config = _config(tmp_path, exclude_seen=exclude)
    popularity = np.arange(NUM_ITEMS) % 7
    answers = run_ranks(world_size, _evaluate, config, popularity)
    assert all(answer == answers[0] for answer in answers)
    result, validation, done = answers[0]

    expected = _expected_ranks(config, range(21, 24), exclude)
    overall = _means([rank for rank, *_ in expected])
    assert {name: result["overall"][name] for name in overall} == pytest.approx(overall)
    baselines = {"popularity": popularity} | ({} if exclude else {"recent_popularity": popularity[::-1]})
    assert result["baselines"].keys() == baselines.keys()
    for name, counts in baselines.items():
        ranks, found = _popularity_ranks(counts, range(21, 24), exclude), result["baselines"][name]
        for wanted, metrics in (
            (ranks, found["overall"]),
            (_ranks_of_users(_with_ranks(expected, ranks), lambda n: n > 5), found["slices"]["users"]["head"]),
        ):
            assert {key: metrics[key] for key in _means(wanted)} == pytest.approx(_means(wanted))
    assert (result["queries"], result["num_items"]) == (len(expected), NUM_ITEMS)
    assert done[-1] == NUM_USERS
    assert len(done) == math.ceil(len(expected) / 4)

    head = set(sorted(range(NUM_ITEMS), key=lambda item: (-popularity[item], item))[: NUM_ITEMS // 5])
    members = {
        ("items", "head"): [rank for rank, target, *_ in expected if target in head],
        ("items", "tail"): [rank for rank, target, *_ in expected if target not in head],
        ("items", "cold"): [rank for rank, target, *_ in expected if popularity[target] == 0],
        ("items", "held_out"): [rank for rank, target, *_ in expected if popularity[target] % 4 == 0],
        ("users", "head"): _ranks_of_users(expected, lambda length: length > 5),
        ("users", "tail"): _ranks_of_users(expected, lambda length: length <= 5),
        ("histories", "short"): [rank for rank, _, length, _ in expected if length <= 2],
        ("histories", "long"): [rank for rank, _, length, _ in expected if length > 2],
    }
    for (kind, name), ranks in members.items():
        found = result["slices"][kind][name]
        assert found["queries"] == len(ranks) > 0
        assert {metric: found[metric] for metric in overall} == pytest.approx(_means(ranks))

    listed = [item for *_, top in expected for item in top]
    assert result["catalog"]["coverage@3"] == pytest.approx(len(set(listed)) / NUM_ITEMS)
    assert result["catalog"]["average_popularity@3"] == pytest.approx(popularity[listed].mean())
    assert result["catalog"]["tail_share@3"] == pytest.approx(np.mean([item not in head for item in listed]))
    targets = [target for _, target, *_ in expected]
    assert result["catalog"]["target_average_popularity"] == pytest.approx(popularity[targets].mean())

    firsts = [query for query in expected if query[2] == 1]  # a user's first target is at position 1
    shown = [(each["target"], each["rank"], each["ranked"]) for each in result["examples"]]
    assert shown == [(target, rank, top) for rank, target, _, top in firsts]
    sequences = tiny_sequences()
    assert [each["history"] for each in result["examples"]] == [sequences[user][:1] for user in range(21, 24)]
    assert [each["user_id"] for each in result["examples"]] == [f"user {user}" for user in range(21, 24)]

    held_out = _means([rank for rank, *_ in _expected_ranks(config, range(18, 21), exclude)])
    assert {name: validation[name] for name in held_out} == pytest.approx(held_out)


def test_a_slice_without_queries_has_no_metrics(tmp_path: Path) -> None:
    tiny_workspace(tmp_path)
    result, _, _ = _evaluate(_config(tmp_path, short_history=50), np.ones(NUM_ITEMS))
    assert result["slices"]["histories"]["long"] == {
        "queries": 0,
        **{f"{name}@{k}": None for name in ("hr", "ndcg", "mrr") for k in (1, 3)},
    }


@pytest.mark.parametrize("users_per_group", [1, 2, 100])
def test_chosen_targets_are_those_at_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users_per_group: int
) -> None:
    monkeypatch.setattr(sequence_store, "GROUP_USERS", users_per_group)
    tiny_workspace(tmp_path, row_group_size=1)
    config = _config(tmp_path, exclude_seen=False)
    ranks = [rank for rank, *_ in _expected_ranks(config, range(18, 21), exclude=False)]
    chosen = np.array([1, 4, 5, len(ranks) - 1])
    store = SequenceStore(Workspace(config.workspace))
    found = validation_metrics(_model(config), store, "validation", config.evaluate, Communicator(), "cosine", chosen)
    expected = _means([ranks[place] for place in chosen])
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_split_without_targets_is_refused(tmp_path: Path) -> None:
    sequences = SequenceStore(tiny_workspace(tmp_path, validation_users=6))
    config = _config(tmp_path)
    with pytest.raises(DataError, match=r"no test targets; check data\.split"):
        evaluate(
            _model(config),
            sequences,
            np.ones(NUM_ITEMS),
            None,
            np.zeros(NUM_ITEMS, bool),
            config.evaluate,
            Communicator(),
            "dot",
            lambda *_: None,
            lambda answers: None,
        )
