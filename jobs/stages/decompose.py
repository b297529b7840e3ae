"""The stage `decompose`: null space and features from the embeddings, by Ray tasks that stream over shards.

Reads `embeddings` (and `popularity` where items are weighted, or held out of training), writes `nullspace` and
`features`. The numbers of the result do not depend on how many workers there are: partial results follow the shards
and are merged in their order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray
from threadpoolctl import threadpool_limits

from alphafuse.config import Config
from alphafuse.errors import DataError
from alphafuse.events import Listener, Metrics, Progress, StageWarning, Summary
from alphafuse.nullspace.decomposition import (
    RELATIVE_FLOOR,
    NullSpace,
    build_nullspace,
    load_nullspace,
    require_feasible,
    save_nullspace,
)
from alphafuse.nullspace.drift import KEPT, RECOMPUTED, Continuation, continue_nullspace
from alphafuse.nullspace.moments import Moments
from alphafuse.nullspace.randomized import faster_method, num_passes, randomized_eigen
from alphafuse.stages import DECOMPOSE
from alphafuse.storage.manifest import FileRecord, fingerprint
from alphafuse.storage.matrices import iterate_rows
from alphafuse.storage.workspace import Workspace
from jobs.execution.placement import require_places, task_slots
from jobs.execution.tasks import in_order, remote_task, result
from jobs.stages import decompose_tasks as tasks

MAX_PARTIALS = 256
"""Most partial results of one pass; of more shards, neighbouring ones share a partial result."""
GPU_TASK_BYTES = 8 * 10**9
"""Bytes of embeddings that a GPU takes for one partial result, where shards are smaller. Each task on a GPU is a new
process (`remote_task`), whose start takes some seconds; to read as much takes longer."""
GPU = "cuda:0"
"""Device of a task that has a GPU, or a share of one: Ray shows it no other."""


def run(config: Config, workspace: Workspace, listen: Listener) -> Summary | None:
    """Make the artefacts `nullspace` and `features`; what is committed already is kept.

    Returns:
        Summary of the stage; None where both artefacts were there already.

    Raises:
        WorkspaceError: `embed` has not finished, a shard is damaged, or the artefacts were made from other inputs.
        DataError: the embeddings cannot be decomposed.
        ConfigError: the embeddings have fewer dimensions than `model.hidden_dim`, or others than the encoder wants, or
            the cut leaves an empty space.
        ResourceError: the cluster is smaller than `decompose.resources` asks for.

    In an update the null space is that of the parent, or is aligned with it, or has nothing to do with it, as the drift
    of the catalog demands (see `alphafuse.nullspace.drift`).
    """
    embeddings = workspace.artifact("embeddings").require()
    shards = [file for file in embeddings.files if file.name.startswith("part-")]
    num_rows = sum(shard.rows for shard in shards)
    if num_rows == 0:
        raise DataError(f"{workspace.artifact('embeddings').folder.uri} holds no items; check `data.catalog`")
    dim = _embedding_dim(workspace)
    method = _method(config, workspace, dim)
    inputs = _inputs(config, workspace, method)
    nullspace_artifact, features_artifact = workspace.artifact("nullspace"), workspace.artifact("features")
    nullspace_done = nullspace_artifact.is_committed(inputs)
    feature_inputs = {"embeddings": embeddings.fingerprint, "nullspace": fingerprint(inputs)}
    if features_artifact.is_committed(feature_inputs) and nullspace_done:
        return None

    require_places(DECOMPOSE.resources, config.decompose.resources)
    passes = 0 if nullspace_done else 1 if method == "gram" else num_passes(config.decompose.power_passes)
    parent = None if config.update.parent is None else workspace.other(config.update.parent)
    if parent is not None and not nullspace_done and method != "gram":
        passes += 1  # over the directions of the parent
    progress = _Progress(listen, num_rows * (passes + 1))
    if not nullspace_done:
        require_feasible(num_rows, dim, config.directions)
        config.model.encoder.check_embeddings(config.model.hidden_dim, dim)
        covariance = _Covariance(config, workspace, shards, dim, progress)
        nullspace, residual, continued = _decompose(config, covariance, dim, method, parent)
        progress.advance_to(num_rows * passes)  # the range finder may have needed fewer passes
        moments = covariance.moments
        details = {
            "num_items": moments.count,
            "num_rows": num_rows,
            "popularity_weighted": moments.weighted,
            "passes": covariance.passes,
            "residual": residual,
            **({} if continued is None else {"update": continued.summary()}),
        }
        save_nullspace(nullspace, nullspace_artifact, inputs, details)
    nullspace = load_nullspace(workspace)
    facts = nullspace_artifact.require().details
    listen(Metrics(DECOMPOSE.name, numbers={name: facts[name] for name in _METRICS}))
    if nullspace.clamped:
        message = (
            f"{nullspace.clamped} of {nullspace.hidden_dim} directions have an eigenvalue below "
            f"{nullspace.eigenvalue_floor:.3g} ({RELATIVE_FLOOR:g} of the largest) and are whitened by that value "
            "instead of their own"
        )
        listen(StageWarning(DECOMPOSE.name, message))
    update = facts.get("update", {})
    if update:
        _report(update, listen)
    kept = parent if update.get("kind") == KEPT else None
    _write_features(config, workspace, shards, nullspace, feature_inputs, progress, kept)
    numbers = {name: update[name] for name in ("lost_energy", "distortion", "change") if update.get(name) is not None}
    return {**{name: facts[name] for name in _SUMMARY}, **({"null_space": update["kind"], **numbers} if update else {})}


def _report(update: Mapping[str, Any], listen: Listener) -> None:
    """Tell how far the catalog has moved, and warn where the model of an update cannot be continued."""
    drift = {name: value for name, value in update.items() if isinstance(value, float)}
    listen(Metrics(DECOMPOSE.name, numbers={f"drift_{name}": value for name, value in drift.items()}))
    if update["kind"] == RECOMPUTED:
        message = (
            f"the catalog has moved too far from the parent's null space ({update['reason']}): the null space is made "
            "again, and the model is trained from scratch"
        )
        listen(StageWarning(DECOMPOSE.name, message))


_METRICS = ("num_rows", "passes", "residual", "retained_energy", "row_dim", "null_dim", "clamped")
_SUMMARY = ("num_items", "embedding_dim", "hidden_dim", "row_dim", "null_dim", "method", "retained_energy", "clamped")


class _Progress:
    """Counts embedding rows read, over all passes."""

    def __init__(self, listen: Listener, total: int) -> None:
        self.listen, self.total, self.done = listen, total, 0

    def add(self, rows: int) -> None:
        self.advance_to(self.done + rows)

    def advance_to(self, done: int) -> None:
        self.done = done
        self.listen(Progress(DECOMPOSE.name, self.done, self.total, "rows"))


class _Covariance:
    """The covariance of the stored embeddings: called with Ω [dim, columns] it returns C Ω, called with None C itself.

    Each call is one pass over the shards.
    """

    def __init__(
        self, config: Config, workspace: Workspace, shards: Sequence[FileRecord], dim: int, progress: _Progress
    ) -> None:
        self.config, self.workspace, self.dim, self.progress = config, workspace, dim, progress
        self.device = GPU if config.decompose.resources.gpus else None
        self.groups = partial_groups(shards, self.device is not None)
        self.moments = Moments.empty(dim)
        self.passes = 0

    def __call__(self, probe: np.ndarray | None) -> np.ndarray:
        weighted, some_held_out = self.config.decompose.popularity_weighted, self.config.data.split.cold_items > 0
        probe_reference = ray.put(probe)
        task = remote_task(tasks.moments_of_shards, self.config.decompose.resources)

        def submit(group: Sequence[FileRecord]) -> ray.ObjectRef:
            threads = _threads(self.config)
            return task(self.workspace, group, self.dim, weighted, some_held_out, probe_reference, threads, self.device)

        merged = Moments.empty(self.dim, weighted=weighted, probe=probe)
        partials = in_order(submit, self.groups, _slots(self.config))
        for group, partial in zip(self.groups, partials, strict=True):
            merged = merged.merge(partial)
            self.progress.add(sum(shard.rows for shard in group))
        self.moments = merged
        self.passes += 1
        covariance = merged.covariance()
        require_feasible(merged.count, self.dim, self.config.directions)
        return covariance


def partial_groups(shards: Sequence[FileRecord], on_gpus: bool) -> list[Sequence[FileRecord]]:
    """Cut the shards of the embeddings into those of each partial result. The cuts know nothing of the workers, so that
    the sums have the same order for any number of them."""
    count = min(len(shards), MAX_PARTIALS)
    if on_gpus:
        count = min(count, math.ceil(sum(shard.bytes for shard in shards) / GPU_TASK_BYTES))
    cuts = [index * len(shards) // count for index in range(count + 1)]
    return [shards[start:end] for start, end in itertools.pairwise(cuts)]


def _decompose(
    config: Config, covariance: _Covariance, dim: int, method: str, parent: Workspace | None
) -> tuple[NullSpace, float, Continuation | None]:
    """The null space, the largest residual of its directions, as a share of the largest eigenvalue, and for an update
    how it follows from that of the parent."""
    hidden_dim, old = config.directions, None if parent is None else load_nullspace(parent)
    if old is not None and old.basis.shape != (dim, hidden_dim):
        raise DataError(
            f"the null space of the parent has {old.hidden_dim} directions of {len(old.mean)} dimensions, where this "
            f"configuration has {hidden_dim} of {dim}: train from scratch, with `alphafuse run`"
        )
    product = None
    if method == "gram":
        matrix = covariance(None)
        values, vectors, residuals = result(
            remote_task(tasks.eigen, config.decompose.resources.without_gpus)(matrix, hidden_dim, _threads(config))
        )
        product = None if old is None else matrix @ old.basis
    else:
        with threadpool_limits(_threads(config)):
            values, vectors, residuals = randomized_eigen(
                covariance,
                dim,
                hidden_dim,
                oversampling=config.decompose.oversampling,
                power_passes=config.decompose.power_passes,
                seed=config.decompose_seed,
            )
        product = None if old is None else covariance(old.basis)
    moments = covariance.moments
    nullspace = build_nullspace(
        moments.mean,
        values,
        vectors,
        moments.total_variance(),
        hidden_dim=hidden_dim,
        config=config.decompose,
        method=method,
    )
    residual = float(residuals[:hidden_dim].max() / values[0])
    if old is None or product is None:
        return nullspace, residual, None
    can_align = "nullspace" not in config.model.encoder.reads
    continued = continue_nullspace(old, nullspace, product * config.decompose.scale**2, config.update, can_align)
    return continued.nullspace, residual, continued


def _write_features(
    config: Config,
    workspace: Workspace,
    shards: Sequence[FileRecord],
    nullspace: NullSpace,
    inputs: dict[str, Any],
    progress: _Progress,
    parent: Workspace | None,
) -> None:
    artifact = workspace.artifact("features")
    wanted = fingerprint(inputs)
    done = artifact.committed_files(wanted).keys()
    progress.add(sum(shard.rows for shard in shards if shard.name in done))
    left = [shard for shard in shards if shard.name not in done]
    nullspace_reference = ray.put(nullspace)
    task = remote_task(tasks.write_features, config.decompose.resources.without_gpus)

    def submit(shard: FileRecord) -> ray.ObjectRef:
        return task(workspace, shard, nullspace_reference, wanted, _threads(config), parent)

    for shard, _ in zip(left, in_order(submit, left, _slots(config)), strict=True):
        progress.add(shard.rows)
    details = {"hidden_dim": nullspace.hidden_dim, "null_dim": nullspace.null_dim}
    artifact.commit(inputs, details, rows=sum(shard.rows for shard in shards))


def _embedding_dim(workspace: Workspace) -> int:
    _, block, _ = next(iterate_rows(workspace.artifact("embeddings"), "embedding", 0, 1))
    return block.shape[1]


def _method(config: Config, workspace: Workspace, dim: int) -> str:
    """The configured method; for `auto` that of the committed null space, or else the faster one."""
    if config.decompose.method != "auto":
        return config.decompose.method
    manifest = workspace.artifact("nullspace").manifest()
    if manifest is not None:
        return manifest.inputs["method"]
    return faster_method(
        dim,
        config.directions,
        oversampling=config.decompose.oversampling,
        power_passes=config.decompose.power_passes,
    )


def _inputs(config: Config, workspace: Workspace, method: str) -> dict[str, Any]:
    """Return what the null space is made from. The settings of the randomized method count only where it is used."""
    unused = {"method", "seed"}
    if method == "gram":
        unused |= {"power_passes", "oversampling"}
    settings = config.decompose.result_settings()
    inputs: dict[str, Any] = {
        "decompose": {name: value for name, value in settings.items() if name not in unused},
        "hidden_dim": config.directions,
        "method": method,
        "embeddings": workspace.artifact("embeddings").require().fingerprint,
    }
    if method == "randomized":
        inputs["seed"] = config.decompose_seed
    if config.update.parent is not None:
        thresholds = {"max_lost_energy", "max_distortion", "max_change"}
        inputs["update"] = config.update.model_dump(mode="json", include=thresholds)
        inputs |= DECOMPOSE.parent_inputs(config, workspace)
    if config.decompose.popularity_weighted or config.data.split.cold_items:
        inputs["popularity"] = workspace.artifact("popularity").require().fingerprint
    return inputs


def _slots(config: Config) -> int:
    return task_slots(DECOMPOSE.resources, config.decompose.resources)


def _threads(config: Config) -> int:
    return max(1, math.floor(config.decompose.resources.cpus))
