"""Top lists over tiles against a sort of all scores."""

from __future__ import annotations

import pytest
import torch

from alphafuse.evaluation.ranking.top_lists import NO_ITEM, TopLists

QUERIES, FIRST_ITEM = 8, 1000


def _added(scores: torch.Tensor, top_k: int, width: int) -> tuple[list[list[int]], torch.Tensor]:
    """Items and scores of the lists after all tiles."""
    lists = TopLists(len(scores), top_k, scores.device)
    for start in range(0, scores.shape[1], width):
        lists.add(scores[:, start : start + width].contiguous(), FIRST_ITEM + start)
    items, found = lists.result()
    return items.tolist(), found


def _sorted(scores: torch.Tensor, top_k: int) -> list[list[int]]:
    """Items by descending score, then ascending index."""
    rows = []
    for row in scores.tolist():
        order = sorted((item for item, score in enumerate(row) if score > -torch.inf), key=lambda item: -row[item])
        rows.append(([FIRST_ITEM + item for item in order] + [NO_ITEM] * top_k)[:top_k])
    return rows


def _scores(kind: str, num_items: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_items)
    scores = torch.randn(QUERIES, num_items, generator=generator)
    if kind == "tied":
        scores = scores.mul(2).round()
    elif kind == "ascending":  # every item is better than all before
        scores = scores.sort(dim=1).values
    elif kind == "of one query":  # all that waits is of one query
        scores[1:] = scores[1:].sort(dim=1, descending=True).values
        scores[0] = torch.arange(num_items)
    elif kind == "left out":
        scores[torch.rand(QUERIES, num_items, generator=generator) < 0.9] = -torch.inf
        scores[1] = -torch.inf
    return scores


@pytest.mark.parametrize("kind", ["random", "tied", "ascending", "of one query", "left out"])
@pytest.mark.parametrize(("top_k", "width"), [(1, 64), (5, 64), (5, 7), (20, 16), (100, 64)])
def test_lists_equal_a_sort_of_everything(kind: str, top_k: int, width: int) -> None:
    scores = _scores(kind, 40 * width + 4)
    items, found = _added(scores, top_k, width)
    assert items == _sorted(scores, top_k)
    expected = scores.sort(dim=1, descending=True).values[:, :top_k]
    assert torch.equal(found[:, : expected.shape[1]], expected)


def test_lists_of_random_items_are_merged_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    merges = []
    merge = TopLists._merge
    monkeypatch.setattr(TopLists, "_merge", lambda *arguments: (merges.append(1), merge(*arguments)))
    scores = torch.randn(4, 256 * 400, generator=torch.Generator().manual_seed(1))
    items, _ = _added(scores, 20, 256)
    assert items == _sorted(scores, 20)
    assert len(merges) < 25  # in 90 of the 400 tiles there is a better item than the last of a list
