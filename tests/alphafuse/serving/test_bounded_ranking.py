"""Search through vectors of eight bits against scores of all items in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alphafuse.evaluation.ranking.catalog_ranking import Queries
from alphafuse.evaluation.ranking.top_lists import NO_ITEM
from alphafuse.evaluation.ranking.vector_blocks import VectorBlocks
from alphafuse.serving import bounded_ranking
from alphafuse.serving.bounded_ranking import BoundedRanking, ByteVectors


def _wanted(vectors: torch.Tensor, hidden: torch.Tensor, left_out: list[set[int]], top_k: int) -> list[list[int]]:
    """The best items of each query: by descending score, then by ascending number."""
    scores = hidden.double() @ vectors.double().T
    items = []
    for row, skipped in zip(scores.tolist(), left_out, strict=True):
        order = sorted((-score, item) for item, score in enumerate(row) if item not in skipped)
        items.append([item for _, item in order[:top_k]])
    return items


def _vectors(kind: str, rows: int, dim: int, generator: torch.Generator) -> torch.Tensor:
    made = torch.randn(rows, dim, generator=generator)
    if kind == "clusters":  # many items are nearly as good as the best
        centres = torch.randn(20, dim, generator=generator)
        made = centres[torch.randint(20, (rows,), generator=generator)] + 0.02 * made
    if kind == "peaks":  # rows whose largest number leaves little room for the others
        made[::7, 3] *= 100
    if kind == "lengths":
        return made * torch.exp(2 * torch.randn(rows, 1, generator=generator))
    return torch.nn.functional.normalize(made, dim=1)


@pytest.mark.parametrize("kind", ["spread", "clusters", "peaks", "lengths"])
@pytest.mark.parametrize("queries", [1, 7])
def test_lists_are_exact(kind: str, queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_ranking, "WIDTHS", (64, 512))  # several tiles, the last of them short
    monkeypatch.setattr(bounded_ranking, "CELLS", 1024)
    monkeypatch.setattr(bounded_ranking, "PAIRS", 100)
    generator = torch.Generator().manual_seed(3)
    vectors = _vectors(kind, 1700, 20, generator)
    hidden = torch.nn.functional.normalize(torch.randn(queries, 20, generator=generator), dim=1)
    best = _wanted(vectors, hidden, [set()] * queries, 3)
    excluded = torch.tensor([[items[1], query, query + 1] for query, items in enumerate(best)] + [[5, 0, queries]]).T
    left_out = [{items[1], 5} for items in best]
    ranking = BoundedRanking(VectorBlocks([vectors[:600], vectors[600:]]))
    for asked, skipped in ((Queries(hidden), [set()] * queries), (Queries(hidden, excluded=excluded), left_out)):
        found = ranking.rank(asked, 10)
        wanted = _wanted(vectors, hidden, skipped, 10)
        assert found.items.tolist() == wanted
        exact = (hidden.double() @ vectors.double().T).gather(1, torch.tensor(wanted))
        np.testing.assert_allclose(found.scores, exact, rtol=1e-5, atol=1e-6)


def test_of_equal_items_the_first_ones_are_listed() -> None:
    generator = torch.Generator().manual_seed(4)
    few = torch.nn.functional.normalize(torch.randn(40, 16, generator=generator), dim=1)
    vectors = few.repeat(5, 1)  # item i is item i + 40
    found = BoundedRanking(VectorBlocks([vectors])).rank(Queries(few[:3]), 7)
    order = (few[:3].double() @ few.double().T).argsort(dim=1, descending=True)
    expected = [[best, best + 40, best + 80, best + 120, best + 160] for best in order[:, 0].tolist()]
    assert [items[:5] for items in found.items.tolist()] == expected
    assert [items[5:] for items in found.items.tolist()] == [[best, best + 40] for best in order[:, 1].tolist()]


def test_lists_of_few_items_end_early() -> None:
    vectors = torch.eye(4)
    everything_but_two = torch.tensor([[0, 0, 1], [3, 0, 1]]).T
    found = BoundedRanking(VectorBlocks([vectors])).rank(Queries(vectors[:1], excluded=everything_but_two), 4)
    assert found.items.tolist() == [[1, 2, NO_ITEM, NO_ITEM]]
    assert found.scores.tolist() == [[0.0, 0.0, -torch.inf, -torch.inf]]


def test_few_vectors_are_compared_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The point of the search: of items that are spread out, nearly all are left out by their eight bits."""
    generator = torch.Generator().manual_seed(5)
    vectors = _vectors("spread", 20_000, 64, generator)
    compared, exact = [], BoundedRanking._exact_scores

    def counting(self: BoundedRanking, hidden: torch.Tensor, query: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        compared.append(len(item))
        return exact(self, hidden, query, item)

    monkeypatch.setattr(BoundedRanking, "_exact_scores", counting)
    BoundedRanking(VectorBlocks([vectors])).rank(Queries(vectors[:1]), 10)
    assert 10 <= sum(compared) < 100


def test_errors_of_eight_bits_are_known() -> None:
    generator = torch.Generator().manual_seed(6)
    vectors = torch.cat([_vectors("peaks", 300, 24, generator), torch.zeros(1, 24)])
    made = ByteVectors.of(vectors)
    near = made.numbers.double() * made.factors[:, None].double()
    np.testing.assert_allclose(made.errors, torch.linalg.vector_norm(vectors - near, dim=1), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(made.lengths, torch.linalg.vector_norm(vectors, dim=1), rtol=1e-5)
    assert made.numbers.abs().max() == 127
