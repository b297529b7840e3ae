"""Brings embeddings that were made elsewhere into the shards of the stage `embed`: Ray tasks put the vectors into
buckets, and match those of a shard's items. What a task has finished is not done again by a later run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from alphafuse.config import EmbedConfig
from alphafuse.config.sections.resources import Resources
from alphafuse.data.importers.source import identified
from alphafuse.data.preparation.scratch import once
from alphafuse.errors import DataError
from alphafuse.events import Listener, Progress, StageWarning
from alphafuse.language.precomputed import (
    NO_VECTOR,
    PrecomputedFiles,
    common_dim,
    find_precomputed,
    match_vectors,
    partition_vectors,
)
from alphafuse.language.store import ITEM_COLUMNS, EmbeddingStore
from alphafuse.stages import EMBED
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.manifest import FileRecord
from jobs.execution.placement import task_slots
from jobs.execution.tasks import in_order, result

BUCKET_BYTES = 32 * 2**20
"""Bytes of the files for each bucket, the unit that a task holds in memory."""


def find_files(config: EmbedConfig, folder: str) -> PrecomputedFiles:
    """The files of `embed.precomputed`, as a worker sees them (see `find_precomputed`)."""
    return result(_find.remote(config, folder))


def bring_in_files(
    files: PrecomputedFiles, config: EmbedConfig, catalog: Artifact, store: EmbeddingStore, listen: Listener
) -> int:
    """Write every shard that is not there yet; returns how many vectors the files hold, repeats of items' left out.

    Raises:
        DataError: a file is damaged, the vectors have different widths, an id has several that differ, or no item has
            one.
    """
    limit = task_slots(EMBED.resources, Resources())
    num_buckets = max(1, -(-sum(source.bytes for source in files.vectors) // BUCKET_BYTES))
    # Beside the vectors of texts, which are deleted once the artefact is committed: until then a run may be repeated.
    scratch = store.vectors.folder / f"buckets-{store.wanted[:16]}-{num_buckets}"
    reference = ray.put(files)
    partitions: list[dict[str, Any]] = []
    for partition in in_order(
        lambda number: _partition.remote(reference, number, scratch, num_buckets), range(len(files.vectors)), limit
    ):
        partitions.append(partition)
        listen(Progress(EMBED.name, len(partitions), len(files.vectors), "vector files"))
    dim = common_dim(files, partitions)
    runs: ray.ObjectRef[Sequence[str]] = ray.put([name for partition in partitions for name in partition["runs"]])

    manifest, finished = catalog.require(), store.finished_shards()
    left = [shard for shard in manifest.files if shard.name not in finished]
    done = manifest.rows - sum(shard.rows for shard in left)
    written = in_order(
        lambda shard: _write_shard.remote(catalog, store, shard, scratch, runs, num_buckets, dim, config), left, limit
    )
    repeats = found = 0
    for shard, (repeated, matched) in zip(left, written, strict=True):
        done, repeats, found = done + shard.rows, repeats + repeated, found + matched
        listen(Progress(EMBED.name, done, manifest.rows, "items"))
    if len(left) == len(manifest.files) and not found:
        item = catalog.read_table(left[0], ["item_id"])["item_id"][0].as_py()
        vector = next(partition["example"] for partition in partitions if partition["rows"])
        raise DataError(
            f"embed.precomputed ({config.precomputed}): no id of the vectors, such as {vector!r}, is that of an "
            f"item, such as {item!r}. Are they the ids of the catalog (embed.precomputed_id_column), and not "
            f"the numbers of the rows?"
        )
    if repeats:
        again = f"{repeats:,} rows of embed.precomputed ({config.precomputed}) repeat id and vector of another"
        listen(StageWarning(EMBED.name, f"{again}: it counts once"))
    return sum(partition["rows"] for partition in partitions) - repeats


@ray.remote
def _find(config: EmbedConfig, folder: str) -> PrecomputedFiles:
    files = find_precomputed(config, folder)
    identified([*files.vectors, *filter(None, [files.ids])])
    return files


@ray.remote
def _partition(files: PrecomputedFiles, number: int, scratch: Folder, num_buckets: int) -> dict[str, Any]:
    prefix = f"source-{number:05d}"
    source = files.vectors[number]
    return once(scratch, f"{prefix}.json", lambda: partition_vectors(files, source, scratch, prefix, num_buckets))


@ray.remote
def _write_shard(
    catalog: Artifact,
    store: EmbeddingStore,
    shard: FileRecord,
    scratch: Folder,
    runs: Sequence[str],
    num_buckets: int,
    dim: int,
    config: EmbedConfig,
) -> tuple[int, int]:
    items = catalog.read_table(shard, ITEM_COLUMNS)
    encoded, repeats = match_vectors(items["item_id"].combine_chunks(), scratch, runs, num_buckets, dim, config)
    store.write_shard(shard.name, items, shard.first_row, encoded)
    return repeats, len(items) - sum(reason.startswith(NO_VECTOR) for reason in encoded.failures.values())
