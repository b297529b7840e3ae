"""Two versions compared on the same targets, against numbers that are counted by hand from all scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from support.processes.gloo_workers import without_ray
from support.workspaces.exported_model import exported
from support.workspaces.tiny_workspace import NUM_ITEMS, tiny_sequences

from alphafuse.config import Config
from alphafuse.errors import WorkspaceError
from alphafuse.evaluation.ranks import read_ranks
from alphafuse.events import ignore
from alphafuse.registry.version import Version
from alphafuse.registry.version_registry import Registry
from alphafuse.serving.recommender import Recommender, load, load_version
from alphafuse.storage.workspace import Workspace
from alphafuse.version_comparison import compare_versions, read_targets, require_no_drop
from jobs.stages import evaluate


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> list[Config]:
    """Two models on the same data, the second of which reads histories alike and has other rows."""
    folder = tmp_path_factory.mktemp("versions")
    return [exported(folder / name, {"history_length": length}) for name, length in (("one", 4), ("two", 2))]


@pytest.fixture(scope="module")
def versions(configs: list[Config]) -> list[Version]:
    registry = Registry(str(Path(configs[0].workspace).parent / "registry"))
    added = []
    for config in configs:
        workspace = Workspace(config.workspace)
        with without_ray():
            evaluate.run(config, workspace, ignore)
        added.append(registry.add(workspace))
    return added


def _test_targets() -> list[tuple[list[str], str]]:
    sequences = tiny_sequences()[21:]
    return [
        ([f"item {item}" for item in items[:position]], f"item {items[position]}")
        for items in sequences
        for position in range(1, len(items))
    ]


def test_ranks_are_those_of_the_evaluation(configs: list[Config], versions: list[Version]) -> None:
    for config in configs:
        queries = read_targets(Workspace(config.workspace), 10**6)
        assert list(zip(queries.histories, queries.targets, strict=True)) == _test_targets()
        ranks = load(config.workspace).ranks(queries.histories, queries.targets)
        stored = read_ranks(Workspace(config.workspace).artifact("evaluation"), "rank")["rank"].to_numpy()
        np.testing.assert_array_equal(ranks, stored)


def test_metrics_and_stability(configs: list[Config], versions: list[Version]) -> None:
    comparison = compare_versions(versions[0], versions[1], 10**6)
    assert (comparison.targets, comparison.users) == (len(_test_targets()), 3)
    for version, name in zip(versions, ("before", "after"), strict=True):
        values = [getattr(comparison.difference(metric), name) for metric in ("ndcg@10", "hr@10", "mrr@10")]
        np.testing.assert_allclose(values, [version.metrics[metric] for metric in ("ndcg@10", "hr@10", "mrr@10")])

    overlaps, correlations = [], []
    recommenders = [load(config.workspace) for config in configs]
    everything = [f"item {item}" for item in range(NUM_ITEMS)]
    for history, _ in _test_targets():
        lists = [{item.item_id for item in each.recommend([history])[0]} for each in recommenders]
        overlaps.append(len(lists[0] & lists[1]) / 10)
        correlations.append(spearmanr(*(each.score([history], everything)[0] for each in recommenders)).statistic)
    assert comparison.stability.overlap == pytest.approx(np.mean(overlaps))
    assert comparison.stability.rank_correlation == pytest.approx(np.mean(correlations))
    assert comparison.stability.overlap < 1

    same = compare_versions(versions[1], versions[1], 10**6)
    assert (same.stability.overlap, same.stability.rank_correlation) == (1, pytest.approx(1))
    assert [(each.drop, each.p_value) for each in same.differences] == [(0, 1)] * 3


def test_a_worse_version_is_refused(versions: list[Version]) -> None:
    worse, better = sorted(versions, key=lambda version: version.metrics["ndcg@10"])
    comparison = compare_versions(better, worse, 10**6)
    drop = 1 - worse.metrics["ndcg@10"] / better.metrics["ndcg@10"]
    assert comparison.difference("ndcg@10").drop == pytest.approx(drop)
    with pytest.raises(WorkspaceError, match=rf"{worse.id} is not promoted: its ndcg@10 .*p = .*--max-drop"):
        require_no_drop(comparison, "ndcg@10", drop - 1e-6)
    require_no_drop(comparison, "ndcg@10", drop + 1e-6)
    require_no_drop(compare_versions(worse, better, 10**6), "ndcg@10", 0)


def test_some_users_stand_for_all(configs: list[Config]) -> None:
    workspace, everything = Workspace(configs[0].workspace), len(_test_targets())
    sizes = []
    for most in range(1, everything + 1):
        found = read_targets(workspace, most)
        assert {*found.users.tolist()} == {*range(found.users.max() + 1)}
        assert {*zip(map(tuple, found.histories), found.targets, strict=True)} <= {
            (tuple(h), t) for h, t in _test_targets()
        }
        sizes.append(len(found.targets))
    assert sizes == sorted(sizes)
    assert all(size >= most for most, size in enumerate(sizes, start=1))
    assert (len({*sizes}), sizes[-1]) == (3, everything)  # one, two and three users


def test_unknown_items_count_as_missed(configs: list[Config]) -> None:
    recommender: Recommender = load(configs[0].workspace)
    with pytest.warns(UserWarning, match="not in the catalog"):
        ranks = recommender.ranks([["item 1"], ["stranger"], ["item 2", "stranger"]], ["stranger", "item 1", "item 3"])
    assert ranks[:2].tolist() == [0, 0]
    assert ranks[2] == recommender.ranks([["item 2"]], ["item 3"])[0] > 0


def test_an_export_that_was_made_again_is_no_version_any_more(versions: list[Version]) -> None:
    assert load_version(versions[0]).fingerprint == versions[0].fingerprint
    other = Version(**{**vars(versions[0]), "fingerprint": versions[1].fingerprint})
    with pytest.raises(WorkspaceError, match=r"is not that of version v0001.*models add"):
        load_version(other)
