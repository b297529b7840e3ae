"""The sharded ranking against a sort of all scores in float64, on 1, 2 and 3 ranks."""

from __future__ import annotations

from typing import Literal
from unittest.mock import patch

import numpy as np
import pytest
import torch
from support.processes.multi_process import run_ranks

import alphafuse.evaluation.ranking.exclusions
from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.row_partition import RowPartition
from alphafuse.errors import AlphafuseError
from alphafuse.evaluation.ranking.catalog_ranking import CatalogRanking, Queries
from alphafuse.evaluation.ranking.top_lists import NO_ITEM

NUM_ITEMS = 31


def _rank(vectors: torch.Tensor, queries: Queries, similarity: Literal["cosine", "dot"], top_k: int) -> list[list[int]]:
    communicator = Communicator()
    start, stop = RowPartition(len(vectors), communicator.world_size).range(communicator.rank)
    ranking = CatalogRanking(vectors[start:stop].float(), start, similarity, communicator, (4, 7))
    ranked = ranking.rank(queries, top_k)
    assert ranked.scores.shape == ranked.items.shape
    return [ranked.ranks.tolist(), ranked.items.tolist()]


def _reference(vectors: torch.Tensor, queries: Queries, similarity: str, top_k: int) -> list[list[int]]:
    """Sort the whole catalog for each query: by descending score, then ascending index."""
    hidden, items = queries.hidden.double().numpy(), vectors.double().numpy()
    if similarity == "cosine":
        hidden = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
        items = items / np.linalg.norm(items, axis=1, keepdims=True)
    scores = hidden @ items.T
    ranks, tops = [], []
    for query, target in enumerate(queries.targets.tolist()):  # type: ignore[union-attr]
        exclusions = [] if queries.excluded is None else queries.excluded.T.tolist()
        left_out = {item for item, first, stop in exclusions if first <= query < stop and item != target}
        order = sorted(set(range(len(items))) - left_out, key=lambda item: (-scores[query, item], item))
        ranks.append(order.index(target) + 1)
        tops.append((order + [NO_ITEM] * top_k)[:top_k])
    return [ranks, tops]


def _queries(seed: int, count: int = 7, dim: int = 5) -> tuple[torch.Tensor, Queries]:
    generator = np.random.default_rng(seed)
    excluded = [(int(item), *sorted(generator.integers(0, count + 1, 2))) for item in generator.permutation(NUM_ITEMS)]
    return torch.from_numpy(generator.standard_normal((NUM_ITEMS, dim))), Queries(
        torch.from_numpy(generator.standard_normal((count, dim))),
        torch.from_numpy(generator.integers(0, NUM_ITEMS, count)),
        torch.tensor(excluded, dtype=torch.int64).T,
    )


@pytest.mark.distributed
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_and_top_lists_equal_a_sort_of_everything(world_size: int, similarity: str) -> None:
    vectors, queries = _queries(seed=world_size)
    expected = _reference(vectors, queries, similarity, 6)
    assert run_ranks(world_size, _rank, vectors, queries, similarity, 6) == [expected] * world_size


def test_exclusions_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alphafuse.evaluation.ranking.exclusions, "MOST_PAIRS", 2)
    vectors, queries = _queries(seed=9)
    assert _rank(vectors, queries, "dot", 6) == _reference(vectors, queries, "dot", 6)


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_of_equal_scores_the_lower_index_comes_first(world_size: int) -> None:
    generator = np.random.default_rng(5)
    vectors = torch.from_numpy(generator.integers(-1, 2, (NUM_ITEMS, 2)).astype(np.float64))  # many equal scores
    hidden = torch.from_numpy(generator.integers(-1, 2, (9, 2)).astype(np.float64))  # some queries score all alike
    queries = Queries(hidden, torch.arange(9) * 3)
    expected = _reference(vectors, queries, "dot", 10)
    assert run_ranks(world_size, _rank, vectors, queries, "dot", 10) == [expected] * world_size


@pytest.mark.parametrize("num_items", [100, 1025, 2049])
@pytest.mark.parametrize("num_queries", [1, 2, 3, 5, 513])
def test_equal_vectors_tie_whatever_the_number_of_queries_and_items(num_queries: int, num_items: int) -> None:
    _assert_that_equal_vectors_tie(num_queries, num_items, torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("num_items", [100, 2049, 70_000])
@pytest.mark.parametrize("num_queries", [1, 3, 513])
def test_equal_vectors_tie_on_a_gpu(num_queries: int, num_items: int) -> None:
    torch.set_float32_matmul_precision("high")
    try:
        _assert_that_equal_vectors_tie(num_queries, num_items, torch.device("cuda"))
    finally:
        torch.set_float32_matmul_precision("highest")


def _assert_that_equal_vectors_tie(num_queries: int, num_items: int, device: torch.device) -> None:
    """Thirty-seven vectors, each of many items. Products of different shapes would round their scores differently."""
    generator = torch.Generator().manual_seed(num_queries * num_items)
    kinds, kind = torch.randn(37, 48, generator=generator), torch.arange(num_items) % 37
    hidden = torch.randn(num_queries, 48, generator=generator)
    targets = torch.randint(num_items, (num_queries,), generator=generator)
    scores = (hidden.double() @ kinds.double().T)[:, kind]  # equal for items of one kind, by construction
    wanted = scores.gather(1, targets[:, None])
    expected = 1 + ((scores > wanted) | ((scores == wanted) & (torch.arange(num_items) < targets[:, None]))).sum(dim=1)
    ranking = CatalogRanking(kinds[kind].to(device), 0, "dot", Communicator())
    assert ranking.rank(Queries(hidden.to(device), targets.to(device))).ranks.tolist() == expected.tolist()


def test_scores_are_products_in_full_precision_whatever_the_process_chose() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        ranking, chosen = CatalogRanking(torch.ones(3, 1), 0, "dot", Communicator()), []
        queries = Queries(torch.ones(2, 1), torch.tensor([1, 2]))
        product = torch.mm
        with patch("torch.mm", lambda *a, **k: chosen.append(torch.get_float32_matmul_precision()) or product(*a, **k)):
            assert ranking.rank(queries, 2).ranks.tolist() == [2, 3]
        assert set(chosen) == {"highest"}
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.distributed
def test_more_ranks_than_items() -> None:
    queries = Queries(torch.ones(2, 1), torch.tensor([1, 1]), torch.tensor([[1], [1], [2]]))
    expected = [
        [1, 1],
        [[1, 0, NO_ITEM], [1, 0, NO_ITEM]],
    ]  # both items; nothing is left out, as item 1 is the target of query 1
    assert run_ranks(3, _rank, torch.tensor([[1.0], [2.0]]), queries, "dot", 3)[2] == expected


def test_lists_end_where_nothing_is_left() -> None:
    excluded = torch.tensor([[0, 1, 2], [0, 1, 0], [2, 2, 2]])
    ranking = CatalogRanking(torch.tensor([[3.0], [2.0], [1.0]]), 0, "dot", Communicator())
    ranked = ranking.rank(Queries(torch.ones(2, 1), excluded=excluded), 3)
    assert ranked.items.tolist() == [[1, NO_ITEM, NO_ITEM], [NO_ITEM] * 3]
    assert ranked.ranks.tolist() == []


def test_a_target_is_never_left_out() -> None:
    ranking = CatalogRanking(torch.tensor([[3.0], [2.0], [1.0]]), 0, "dot", Communicator())
    queries = Queries(torch.ones(1, 1), torch.tensor([1]), torch.tensor([[0, 1], [0, 0], [1, 1]]))
    assert ranking.rank(queries).ranks.tolist() == [1]


def test_no_queries() -> None:
    ranking = CatalogRanking(torch.ones(3, 1), 0, "dot", Communicator())
    ranked = ranking.rank(Queries(torch.zeros(0, 1), torch.zeros(0).long()), 2)
    assert ranked.ranks.shape == (0,)
    assert ranked.items.shape[0] == 0


def test_a_diverged_model_is_refused_instead_of_ranked_first() -> None:
    with pytest.raises(AlphafuseError, match=r"1 item vectors .* not finite: the training has diverged"):
        CatalogRanking(torch.tensor([[1.0], [torch.nan]]), 0, "dot", Communicator())
    ranking = CatalogRanking(torch.ones(3, 1), 0, "dot", Communicator())
    queries = Queries(torch.tensor([[torch.inf]]), torch.tensor([1]))
    with pytest.raises(AlphafuseError, match="1 hidden states"):
        ranking.rank(queries)
