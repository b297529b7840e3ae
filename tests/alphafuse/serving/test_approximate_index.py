"""The approximate index against exact ranking, and what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from support.workspaces.exported_model import exported
from support.workspaces.tiny_workspace import NUM_ITEMS, tiny_sequences

from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import WorkspaceError
from alphafuse.evaluation.ranking.catalog_ranking import CatalogRanking, Queries
from alphafuse.evaluation.ranking.vector_blocks import VectorBlocks
from alphafuse.extras import MissingPackageError
from alphafuse.serving.approximate_index import ApproximateRanking, to_index
from alphafuse.serving.export_files import INDEX_FILE
from alphafuse.serving.recommender import load


def _ids(history: list[int]) -> list[str]:
    return [f"item {item}" for item in history]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexed") / "run"
    exported(folder, index=True)
    return folder


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_lists_of_a_small_catalog_are_exact(workspace: Path, exclude_seen: bool) -> None:
    """The index proposes all items where there are 30."""
    exact, approximate = load(workspace), load(workspace, "approximate")
    histories = [_ids(history) for history in tiny_sequences()]
    asked = [["item 7"], ["item 8"]]
    pairs = [(approximate.similar_items(items, 5), exact.similar_items(items, 5)) for items in asked]
    for k in (3, NUM_ITEMS):
        pairs.append((approximate.recommend(histories, k, exclude_seen), exact.recommend(histories, k, exclude_seen)))
    for found, wanted in pairs:
        assert [[item.item_id for item in items] for items in found] == [[i.item_id for i in items] for items in wanted]
        for items, others in zip(found, wanted, strict=True):
            np.testing.assert_allclose([item.score for item in items], [item.score for item in others], atol=1e-6)


def test_most_of_the_best_items_are_found_in_their_exact_order(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    topics = generator.standard_normal((50, 16))
    made = topics[generator.integers(50, size=4000)] + 0.5 * generator.standard_normal((4000, 16))
    vectors = torch.nn.functional.normalize(torch.from_numpy(made).float(), dim=1)
    blocks = VectorBlocks([vectors[:1500], vectors[1500:]])
    file = tmp_path / "index"
    file.write_bytes(to_index(blocks))
    hidden = torch.nn.functional.normalize(vectors[:100] + 0.1, dim=1)
    numbers = torch.arange(100)
    excluded = torch.stack([numbers, numbers, numbers + 1])  # of each query the item that it was made from
    queries = Queries(hidden, excluded=excluded)
    later = VectorBlocks([vectors[:1500], vectors[1500:], vectors[:5] * 1.1])  # not in the index
    assert ApproximateRanking(later, str(file), 4000).rank(Queries(vectors[:5]), 1).items[:, 0].tolist() == [
        *range(4000, 4005)
    ]
    found = ApproximateRanking(blocks, str(file), 4000).rank(queries, 10)
    exact = CatalogRanking(vectors.clone(), 0, "dot", Communicator()).rank(queries, 10)
    shared = [len({*a} & {*b}) for a, b in zip(found.items.tolist(), exact.items.tolist(), strict=True)]
    assert np.mean(shared) / 10 >= 0.95
    assert not (found.items == numbers[:, None]).any()
    scores = (hidden[:, None] * vectors[found.items]).sum(dim=2)
    torch.testing.assert_close(found.scores, scores)
    assert (found.scores.diff(dim=1) <= 0).all()


def test_an_index_of_other_vectors_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "index"
    file.write_bytes(to_index(VectorBlocks([torch.randn(20, 8)])))
    for rows, dim in ((21, 8), (20, 9)):
        with pytest.raises(ValueError, match=f"it indexes 20 vectors of 8 dimensions, not {rows} of {dim}"):
            ApproximateRanking(VectorBlocks([torch.randn(30, dim)]), str(file), rows)


def test_a_missing_or_damaged_index_is_named(tmp_path: Path) -> None:
    exported(tmp_path / "without")
    with pytest.raises(WorkspaceError, match=r"holds no index for approximate search: .* export\.index=true"):
        load(tmp_path / "without", "approximate")
    exported(tmp_path / "with", index=True)
    file = tmp_path / "with" / "export" / INDEX_FILE
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    load(tmp_path / "with")  # which does not read it
    with pytest.raises(WorkspaceError, match=r"items\.usearch cannot be used: its checksum differs"):
        load(tmp_path / "with", "approximate")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(tmp_path, index=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"approximate search needs the package usearch, which is not"):
        load(tmp_path, "approximate")
