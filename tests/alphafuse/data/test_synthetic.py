"""Synthetic data: reproducible, complete, and with the structure that is promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.data import synthetic
from alphafuse.data.synthetic import BLOCK, SyntheticData, num_blocks

DATA = SyntheticData(num_items=BLOCK + 1000, num_users=BLOCK + 10, dim=24, seed=5, interactions=9)


@pytest.fixture(scope="module")
def catalog() -> pa.Table:
    return pa.concat_tables([DATA.items(block) for block in range(num_blocks(DATA.num_items))])


@pytest.fixture(scope="module")
def log() -> pa.Table:
    return pa.concat_tables([DATA.interactions_of(block) for block in range(num_blocks(DATA.num_users))])


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """The numbers in ids such as i12."""
    return np.array([int(value[1:]) for value in column.to_pylist()])


def test_every_item_and_user_is_there_once(catalog: pa.Table, log: pa.Table) -> None:
    assert numbers(catalog["item_id"]).tolist() == list(range(DATA.num_items))
    assert len(set(catalog["title"].to_pylist())) == DATA.num_items
    users = numbers(log["user_id"])
    assert np.unique(users).tolist() == list(range(DATA.num_users))
    lengths = np.bincount(users)
    assert lengths.min() == synthetic.SHORTEST
    assert lengths.mean() == pytest.approx(DATA.interactions, rel=0.03)
    assert set(numbers(log["item_id"])) <= set(range(DATA.num_items))


def test_a_block_depends_on_seed_and_number_alone(catalog: pa.Table, log: pa.Table) -> None:
    again = replace(DATA)
    assert again.items(1).equals(catalog.slice(BLOCK))
    assert again.interactions_of(1).equals(log.slice(log.num_rows - again.interactions_of(1).num_rows))
    other = replace(DATA, seed=6)
    assert not np.allclose(other.embeddings(0), DATA.embeddings(0))
    assert not other.interactions_of(1).equals(again.interactions_of(1))


def test_users_follow_each_other_and_time_goes_on(log: pa.Table) -> None:
    users, times = numbers(log["user_id"]), log["timestamp"].to_numpy()
    assert (np.diff(users) >= 0).all()
    assert (np.diff(times)[np.diff(users) == 0] > 0).all()


def test_embeddings_have_unit_length_and_a_decaying_spectrum(catalog: pa.Table) -> None:
    vectors = np.array(catalog["embedding"].to_pylist(), np.float64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)  # float16
    eigenvalues = np.linalg.eigvalsh(np.cov(vectors.T))[::-1]
    # The variances 1, 1/2, 1/3, … but for the scaling to unit length; 96 topics give a rough sample.
    ratios = eigenvalues[:12] / eigenvalues[0] * np.arange(1, 13) ** synthetic.SPECTRUM_EXPONENT
    assert ((ratios > 0.5) & (ratios < 2)).all()
    assert np.abs(np.corrcoef(vectors.T) - np.eye(DATA.dim)).max() > 0.1  # the axes are not its basis


def test_topics_show_in_texts_embeddings_and_popularity(catalog: pa.Table, log: pa.Table) -> None:
    topics = np.arange(DATA.num_items) * DATA.num_topics // DATA.num_items
    vectors = np.array(catalog["embedding"].to_pylist(), np.float64)
    vectors -= vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = np.random.default_rng(0).integers(0, DATA.num_items, (2, 20_000))
    neighbours = np.stack([pairs[0], np.minimum(pairs[0] + 1, DATA.num_items - 1)])

    def similarity(two: np.ndarray) -> float:
        return float((vectors[two[0]] * vectors[two[1]]).sum(axis=1).mean())

    assert similarity(neighbours) > similarity(pairs) + 0.4
    words = [set(text.lower().replace(".", "").split()) for text in catalog["text"].to_pylist()]
    shared = [len(words[a] & words[b]) for a, b in neighbours.T[:2000]]
    strangers = [len(words[a] & words[b]) for a, b in pairs.T[:2000]]
    assert np.mean(shared) > np.mean(strangers) + 0.5
    counts = np.bincount(topics[numbers(log["item_id"])])
    assert counts[0] > 5 * counts[len(counts) // 2]


def test_behaviour_beats_popularity(log: pa.Table) -> None:
    """The items that follow an item in one half of the users predict those of the other half."""
    users, items = numbers(log["user_id"]), numbers(log["item_id"])
    step = np.diff(users) == 0
    before, after = items[:-1][step], items[1:][step]
    known = users[:-1][step] % 2 == 0
    follows = (after == before + 1)[~known].mean()
    popular = np.argsort(-np.bincount(after[known]))[:10]
    assert follows > synthetic.FOLLOW * 0.9
    assert np.isin(after[~known], popular).mean() < follows / 2
