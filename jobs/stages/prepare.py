"""The stage `prepare`: catalog and log of any source become the artefacts `catalog`, `sequences` and `popularity`.

Owns the order of the steps and what is committed and reported. The work is done by Ray tasks (`prepare_tasks`) that
meet in a folder `scratch/` of the workspace, so that no disk has to be shared and no process holds more than a bucket
(and 8 bytes per item). What a task has finished is not done again by a later run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import ray

from alphafuse.config import Config, DataConfig, SourceConfig, SplitConfig
from alphafuse.data.importers.source import Source
from alphafuse.data.preparation.increments import require_increments
from alphafuse.data.preparation.interactions import require_one_time_kind
from alphafuse.data.preparation.recency import recent_cut
from alphafuse.data.preparation.rules import (
    catalog_warnings,
    interaction_warnings,
    no_training_targets,
    nothing_left,
    require_reconciled,
    unread_message,
)
from alphafuse.data.preparation.sequence_shards import ShardPlan
from alphafuse.data.preparation.sources import Sources
from alphafuse.data.preparation.splits import NAMES
from alphafuse.data.preparation.time_units import require_one_unit
from alphafuse.errors import DataError
from alphafuse.events import Listener, Progress, StageWarning, Summary, Value
from alphafuse.stages import PREPARE
from alphafuse.storage.filesystem.folder import Folder, resolve
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from jobs.execution.placement import task_options, task_slots
from jobs.execution.tasks import in_order, result
from jobs.stages import prepare_tasks as tasks
from jobs.stages.prepare_tasks import bucket_name

BUCKET_BYTES = 32 * 2**20
"""Bytes of the sources for each bucket, the unit that a task sorts in memory."""


def run(config: Config, workspace: Workspace, listen: Listener) -> Summary | None:
    """Make the artefacts `catalog`, `sequences` and `popularity`; what is committed already is kept.

    Returns:
        Summary of the stage; None where all artefacts were there already.

    Raises:
        ConfigError: the text template is malformed, or the temporal split has no timestamps to cut by.
        DataError: a source is missing, damaged or lacks columns; the files of the log are no increments where they
            should be; no interactions, or none to train on, are left.
        WorkspaceError: the artefacts there were made from other inputs.
    """
    # A worker may have another current folder.
    data = config.data.model_copy(update={"folder": resolve(config.data.folder)})
    task_slots(PREPARE.resources, data.resources)
    sources = result(tasks.find_all.options(**task_options(data.resources)).remote(data))
    if data.interactions.increments and not PREPARE.is_finished(workspace):
        _require_increments(config.update.parent, workspace, sources.interactions)
    stage = _Stage(data, config.split_seed, workspace, listen)
    if sources.unread:
        stage.warn([unread_message(sources.unread)])
    catalog = _make_catalog(stage, sources.catalog)
    sequences = _make_sequences(stage, sources)
    _make_popularity(stage, catalog["items"])
    stage.scratch.delete()
    return {**_flat("catalog", catalog), **_flat("sequences", sequences)} if stage.worked else None


def _require_increments(parent: str | None, workspace: Workspace, log: Sequence[Source]) -> None:
    before = [] if parent is None else workspace.other(parent).artifact("sequences").require().inputs["files"]
    require_increments(before, [source.identity for source in log])


@dataclass
class _Stage:
    """Inputs that all steps share; `seed` is that of the split."""

    data: DataConfig
    seed: int
    workspace: Workspace
    listen: Listener
    worked: bool = False

    @property
    def scratch(self) -> Folder:
        return self.workspace.folder / "scratch"

    def task(self, function: Any) -> Callable[..., ray.ObjectRef]:
        """Return a function that submits a task to the machines that the configuration asks for."""
        return function.options(**task_options(self.data.resources)).remote

    def do(self, unit: str, submit: Callable[[Any], ray.ObjectRef], arguments: Sequence[Any]) -> list[Any]:
        """Run one task per argument; returns the results in order, with a progress event after each."""
        self.worked = True
        limit = task_slots(PREPARE.resources, self.data.resources)
        results = []
        for value in in_order(submit, arguments, limit):
            results.append(value)
            self.listen(Progress(PREPARE.name, len(results), len(arguments), unit))
        return results

    @cached_property
    def cold_items(self) -> ray.ObjectRef:
        """The items that are held out of training (see `find_cold_items`)."""
        return self.task(tasks.find_cold_items)(self.workspace.artifact("catalog"), self.data.split, self.seed)

    def warn(self, messages: Iterable[str]) -> None:
        for message in messages:
            self.listen(StageWarning(PREPARE.name, message))


def _make_catalog(stage: _Stage, sources: list[Source]) -> dict[str, Any]:
    """Make the artefact `catalog`; returns the counts in its manifest."""
    artifact, config, shard_rows = stage.workspace.artifact("catalog"), stage.data.catalog, stage.data.shard_rows
    inputs = {
        "catalog": _reading(config),
        "shard_rows": shard_rows,
        "files": [source.identity for source in sources],
    }
    if artifact.is_committed(inputs):
        return artifact.require().details
    wanted, num_buckets = fingerprint(inputs), _num_buckets(sources)
    scratch = stage.scratch / f"catalog-{wanted[:16]}-{num_buckets}"
    partitions = stage.do(
        "catalog files",
        lambda number: stage.task(tasks.partition_catalog)(config, sources[number], scratch, number, num_buckets),
        range(len(sources)),
    )
    read = _sum(partitions)
    if read["rows_read"] == read["null_ids_dropped"]:
        raise DataError(
            f"the catalog of data.catalog.path ({config.path}) has no items: {read['rows_read']} rows were read, "
            f"{read['null_ids_dropped']} of them without {config.item_id!r}"
        )
    runs = [name for partition in partitions for name in partition["runs"]]
    buckets = stage.do(
        "catalog buckets",
        lambda number: stage.task(tasks.sort_catalog_bucket)(scratch, runs, number),
        range(num_buckets),
    )
    num_items = sum(bucket["rows"] for bucket in buckets)
    parts = [(bucket_name(number), bucket["rows"]) for number, bucket in enumerate(buckets)]
    committed = artifact.committed_files(wanted)
    starts = {_shard_name(number): start for number, start in enumerate(range(0, num_items, shard_rows))}
    stage.do(
        "catalog shards",
        lambda name: stage.task(tasks.write_catalog_shard)(
            artifact, name, wanted, scratch, parts, starts[name], min(starts[name] + shard_rows, num_items)
        ),
        [name for name in starts if name not in committed],
    )
    counts = {"items": num_items, **read, **_sum(buckets)}
    require_reconciled(counts, "items")
    artifact.commit(inputs, counts, rows=num_items)
    scratch.delete()
    stage.warn(catalog_warnings(counts))
    return counts


def _make_sequences(stage: _Stage, sources: Sources) -> dict[str, Any]:
    """Make the artefact `sequences`; returns the counts in its manifest."""
    artifact, catalog = stage.workspace.artifact("sequences"), stage.workspace.artifact("catalog")
    config, split = stage.data.interactions, stage.data.split
    inputs = {
        "interactions": _reading(config),
        "files": [source.identity for source in sources.interactions],
        "min_user_interactions": stage.data.min_user_interactions,
        "split": _split_inputs(split, stage.seed, sources.split),
        "catalog": catalog.require().fingerprint,
    }
    if artifact.is_committed(inputs):
        return artifact.require().details
    wanted, num_buckets = fingerprint(inputs), _num_buckets(sources.interactions)
    scratch = stage.scratch / f"sequences-{wanted[:16]}-{num_buckets}"
    parts: Any = stage.task(tasks.read_user_parts)(sources.split) if split.kind == "file" else None
    counts, users = _group(stage, sources.interactions, parts, scratch, num_buckets)

    cold = stage.cold_items
    cuts = stage.task(tasks.find_cuts)(
        scratch, [bucket_name(number) for number in range(num_buckets)], split, stage.seed
    )
    occupied = np.flatnonzero(users).tolist()
    sketches = stage.do("times", lambda bucket: stage.task(tasks.sketch_times)(scratch, bucket_name(bucket)), occupied)
    recent = recent_cut(sketches, split)
    first_rows = np.cumsum([0, *users]).tolist()
    plans = [ShardPlan(bucket_name(bucket), _shard_name(bucket), first_rows[bucket]) for bucket in occupied]
    committed = artifact.committed_files(wanted)
    stage.do(
        "user shards",
        lambda plan: stage.task(tasks.write_sequences_shard)(
            artifact, wanted, scratch, plan, split, stage.seed, cuts, parts, cold, recent
        ),
        [plan for plan in plans if plan.name not in committed],
    )
    shards = [record.details for record in artifact.committed_files(wanted).values()]
    counts["targets"] = {name: sum(shard[name] for shard in shards) for name in NAMES}
    if split.cold_items:
        counts["held_out_interactions"] = sum(shard["held_out"] for shard in shards)
    if not counts["targets"]["train"]:
        artifact.clear()  # so that a run with another split may follow
        raise DataError(no_training_targets(counts, split.kind, result(cuts)))
    artifact.commit(inputs, counts, rows=counts["users"])
    scratch.delete()
    stage.warn(interaction_warnings(counts, split.kind))
    return counts


def _group(
    stage: _Stage, sources: list[Source], parts: ray.ObjectRef | None, scratch: Folder, num_buckets: int
) -> tuple[dict[str, Any], list[int]]:
    """Group the log by user into the buckets; returns what was counted and the users of each bucket."""
    config = stage.data.interactions
    item_hashes = stage.task(tasks.load_item_hashes)(stage.workspace.artifact("catalog"))
    partitions = stage.do(
        "log files",
        lambda number: stage.task(tasks.partition_interactions)(
            config, sources[number], item_hashes, scratch, number, num_buckets
        ),
        range(len(sources)),
    )
    require_one_time_kind({kind for partition in partitions for kind in partition["time_kinds"]}, config.timestamp)
    units = [partition["time_units"] for partition in partitions]
    require_one_unit(zip((source.uri for source in sources), units, strict=True), config.timestamp)
    counts: dict[str, Any] = {"users": 0, **_sum(partitions)}
    examples = [item for partition in partitions for item in partition["unknown_items"]]
    counts["unknown_item_examples"] = list(dict.fromkeys(examples))[:5]
    forms = {form: item for partition in partitions for form, item in partition["known_forms"].items()}
    counts["unknown_item_forms"] = [[form, item] for form, item in forms.items()]
    runs = [name for partition in partitions for name in partition["runs"]]
    users = []
    if runs:
        listed = {} if parts is None else result(stage.task(tasks.count_users)(parts))
        buckets = stage.do(
            "user buckets",
            lambda bucket: stage.task(tasks.group_users)(
                scratch, runs, bucket, stage.data.min_user_interactions, parts
            ),
            range(num_buckets),
        )
        users = [bucket["rows"] for bucket in buckets]
        counts |= {**_sum(buckets), "users": sum(users)}
        if listed:
            counts["split_rows_without_user_id"] = listed["null_ids"]
            counts["split_users_unknown"] = listed["users"] - sum(users)
    if runs:
        require_reconciled(counts, "interactions")
    if not sum(users):
        raise DataError(nothing_left(counts, stage.data))
    return counts, users


def _make_popularity(stage: _Stage, num_items: int) -> None:
    """Make the artefact `popularity`."""
    artifact, sequences = stage.workspace.artifact("popularity"), stage.workspace.artifact("sequences")
    inputs = {"sequences": sequences.require().fingerprint}
    if not artifact.is_committed(inputs):
        wanted = fingerprint(inputs)
        cold = stage.cold_items
        write = stage.task(tasks.write_popularity)
        (counts,) = stage.do("popularity", lambda _: write(stage.workspace, wanted, num_items, cold), [None])
        artifact.commit(inputs, counts, rows=num_items)


def _reading(config: SourceConfig) -> dict[str, Any]:
    """Return the settings that say what is read from files, whose content stands for their path and format."""
    return {name: value for name, value in config.result_settings().items() if name not in ("path", "format")}


def _split_inputs(split: SplitConfig, seed: int, sources: Sequence[Source]) -> dict[str, Any]:
    """Return the inputs that the protocol of the split depends on, and no others."""
    inputs: dict[str, Any] = {"kind": split.kind}
    if split.kind in ("users", "temporal"):
        inputs["ratios"] = list(split.ratios)
    if split.kind == "users" or split.cold_items:
        inputs["seed"] = seed
    if split.cold_items:
        inputs["cold_items"] = split.cold_items
    if split.kind == "file":
        inputs["files"] = [source.identity for source in sources]
    return inputs


def _num_buckets(sources: Sequence[Source]) -> int:
    return max(1, -(-sum(source.bytes for source in sources) // BUCKET_BYTES))


def _shard_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _sum(results: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for value in results:
        total.update(value["counts"])
    return dict(total)


def _flat(name: str, counts: Mapping[str, Any]) -> dict[str, Value]:
    """Flatten counts to values of an event."""
    flat: dict[str, Value] = {}
    for key, value in counts.items():
        if isinstance(value, Mapping):
            flat |= _flat(f"{name}.{key}", value)
        elif not isinstance(value, list):
            flat[f"{name}.{key}"] = value
    return flat
