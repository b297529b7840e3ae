"""Compares two versions of a model on the same test targets: how good they are, and how far the lists have moved.

Both versions are asked as users ask them, through their exports (`alphafuse.load`). So the targets may be newer than
the older version, and items that it does not know count as missed.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
from scipy.stats import rankdata

from alphafuse.data.hashing import hash_with_seed
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.data.sequences import Sequences
from alphafuse.errors import DataError, WorkspaceError
from alphafuse.evaluation.comparison.significance import paired_test
from alphafuse.evaluation.ranking_metrics import gains
from alphafuse.registry.version import Version
from alphafuse.serving.recommender import Recommender, load_version
from alphafuse.storage.workspace import Workspace

METRICS = ("ndcg@10", "hr@10", "mrr@10")
LIST_LENGTH = 10
STABILITY_QUERIES = 1_000
"""Test targets whose lists are compared; the standard error of a mean overlap is below 0.02 then."""
SCORED_ITEMS = 2_000
"""Items, of those that both versions have, whose order is compared."""
BLOCK = 4_096
"""Queries asked at a time."""
MISSED = 2**40
"""Rank of a target that a version does not know: beyond all cutoffs."""


@dataclass(frozen=True)
class AskedTargets:
    """Some test targets of a workspace, with their histories as a client asks for them.

    Attributes:
        histories: ids of the items before each target, oldest first.
        targets: ids of the targets.
        users: int64 [targets], number of each target's user, from 0 on without gaps.
    """

    histories: list[list[str]]
    targets: list[str]
    users: np.ndarray

    def first(self, count: int) -> AskedTargets:
        """The first targets; they are in the order of the users."""
        return AskedTargets(self.histories[:count], self.targets[:count], self.users[:count])


@dataclass(frozen=True)
class Stability:
    """Agreement of two versions.

    Attributes:
        queries: number of histories that both were asked.
        overlap: share of the ten best items that both recommend, mean over the histories.
        rank_correlation: Spearman's correlation of the scores of items that both know, mean over the histories; NaN
            where they have fewer than two in common.
    """

    queries: int
    overlap: float
    rank_correlation: float

    def summary(self) -> dict[str, float]:
        """The numbers for manifests and reports; JSON has no NaN."""
        return {name: value for name, value in asdict(self).items() if value == value}


@dataclass(frozen=True)
class Difference:
    """One metric of both versions.

    Attributes:
        p_value: of the paired t-test over users (`paired_test`).
    """

    metric: str
    before: float
    after: float
    p_value: float

    @property
    def drop(self) -> float:
        """Share of the older version's value that the newer one loses; negative if it gains."""
        return (self.before - self.after) / self.before if self.before else 0.0


@dataclass(frozen=True)
class VersionComparison:
    """Two versions, on the test targets of the newer one's workspace."""

    before: Version
    after: Version
    targets: int
    users: int
    differences: tuple[Difference, ...]
    stability: Stability

    def difference(self, metric: str) -> Difference:
        """The difference in one of `METRICS`."""
        return next(each for each in self.differences if each.metric == metric)


def compare_versions(before: Version, after: Version, targets: int) -> VersionComparison:
    """Compare two versions on at least `targets` test targets of the newer one's workspace, or on all.

    Raises:
        WorkspaceError: an export, the sequences or the evaluation of the newer version are not there, or damaged.
        DataError: there are no test targets.
    """
    workspace = Workspace(after.workspace)
    evaluation = json.loads(workspace.artifact("evaluation").read_file("metrics.json"))
    queries, exclude_seen = read_targets(workspace, targets), bool(evaluation["exclude_seen"])
    old, new = load_version(before), load_version(after)
    ranks = [_ranks(recommender, queries, exclude_seen) for recommender in (old, new)]
    differences = []
    for metric in METRICS:
        one, other = (gains(each, metric) for each in ranks)
        p_value = paired_test((other - one)[None], queries.users).p_value
        differences.append(Difference(metric, float(one.mean()), float(other.mean()), p_value))
    users = int(queries.users.max()) + 1
    stability = measure_stability(old, new, queries, exclude_seen)
    return VersionComparison(before, after, len(queries.targets), users, tuple(differences), stability)


def require_no_drop(comparison: VersionComparison, metric: str, max_drop: float) -> None:
    """Check that a version may take the place of another one.

    Raises:
        WorkspaceError: it loses more than the share `max_drop` of the metric.
    """
    found = comparison.difference(metric)
    if found.drop > max_drop:
        raise WorkspaceError(
            f"{comparison.after.id} is not promoted: its {metric} is {found.after:.4f}, that of "
            f"{comparison.before.id} {found.before:.4f} on the same {comparison.targets:,} targets, {found.drop:.1%} "
            f"less (p = {found.p_value:.2g}).",
            f"It may lose {max_drop:.1%}: `--max-drop` allows more",
        )


def read_targets(workspace: Workspace, most: int) -> AskedTargets:
    """Read the test targets of some users of a workspace: all of them, or at least `most` targets. The users are those
    with the smallest hashes of their ids, so that days and versions are compared on the same ones.

    Raises:
        DataError: there are no test targets.
    """
    catalog, store = workspace.artifact("catalog"), SequenceStore(workspace)
    ids = pa.concat_tables([catalog.read_table(file, ["item_id"]) for file in catalog.require().files])
    names = ids["item_id"].to_numpy()
    last = _last_hash(store, most)
    if last is None:
        raise DataError(f"{workspace.folder.uri} has no test targets to compare versions by; check data.split")
    histories, targets, owners = list[list[str]](), list[str](), list[int]()
    first = 0
    for sequences in store.groups():
        users, positions = sequences.targets("test")
        chosen = (_hashes(sequences) <= last)[users]
        for user, position in zip(users[chosen].tolist(), positions[chosen].tolist(), strict=True):
            *history, target = names[sequences.of(user)[: position + 1]].tolist()
            histories.append(history)
            targets.append(target)
            owners.append(first + user)
        first += sequences.num_users
    return AskedTargets(histories, targets, np.unique(owners, return_inverse=True)[1])


def _last_hash(store: SequenceStore, most: int) -> np.uint64 | None:
    """The largest hash of the users to choose; None if no user has a test target."""
    hashes, counts = [], []
    for sequences in store.groups():
        users, number = np.unique(sequences.targets("test")[0], return_counts=True)
        hashes.append(_hashes(sequences)[users])
        counts.append(number)
    if not sum(map(len, hashes)):
        return None
    order = np.argsort(np.concatenate(hashes))
    place = np.searchsorted(np.cumsum(np.concatenate(counts)[order]), most)
    last: np.uint64 = np.concatenate(hashes)[order][min(place, len(order) - 1)]
    return last


def _hashes(sequences: Sequences) -> np.ndarray:
    return hash_with_seed(sequences.user_ids.combine_chunks(), 0)


def measure_stability(
    before: Recommender, after: Recommender, queries: AskedTargets, exclude_seen: bool = True
) -> Stability:
    """Measure how far lists and scores have moved from one version to the next."""
    asked = queries.first(STABILITY_QUERIES).histories
    common = list(islice((item for item in before.item_ids.to_pylist() if item in after), SCORED_ITEMS))
    correlations: np.ndarray | list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of items that one of them does not know
        lists = [
            [{item.item_id for item in best} for best in each.recommend(asked, LIST_LENGTH, exclude_seen)]
            for each in (before, after)
        ]
        overlaps = [len(one & other) / max(len(one), len(other), 1) for one, other in zip(*lists, strict=True)]
        if len(common) > 1:
            correlations = _correlations(*(each.score(asked, common) for each in (before, after)))
    correlation = float(np.mean(correlations)) if len(correlations) else float("nan")
    return Stability(len(asked), float(np.mean(overlaps)), correlation)


def _correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each pair of rows, [queries, items] each; rows that are not finite are left out."""
    finite = np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1)
    ranks = [rankdata(scores[finite], axis=1) for scores in (one, other)]
    ranks = [each - each.mean(axis=1, keepdims=True) for each in ranks]
    norms = np.prod([np.linalg.norm(each, axis=1) for each in ranks], axis=0)
    correlations: np.ndarray = (ranks[0] * ranks[1]).sum(axis=1)[norms > 0] / norms[norms > 0]
    return correlations


def _ranks(recommender: Recommender, queries: AskedTargets, exclude_seen: bool) -> np.ndarray:
    """Rank of each target by one version, `MISSED` where it does not know the target or anything of the history."""
    found: list[np.ndarray] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for start in range(0, len(queries.targets), BLOCK):
            part: Sequence[int] = range(start, min(start + BLOCK, len(queries.targets)))
            histories, targets = [queries.histories[i] for i in part], [queries.targets[i] for i in part]
            found.append(recommender.ranks(histories, targets, exclude_seen))
    ranks = np.concatenate(found)
    return np.where(ranks > 0, ranks, MISSED)
