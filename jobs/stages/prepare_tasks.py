"""The Ray tasks of the stage `prepare`: one for each piece of work; what is finished is not done again.

The tasks meet in a scratch folder; the stage decides their order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import ray

from alphafuse.config import CatalogConfig, InteractionsConfig
from alphafuse.data.importers.source import Source
from alphafuse.data.preparation import catalog, interactions, recency, sequence_shards, sources, splits
from alphafuse.data.preparation.scratch import once
from alphafuse.storage.filesystem.folder import Folder

find_all = ray.remote(sources.find_checked)
write_catalog_shard = ray.remote(catalog.write_catalog_shard)
load_item_hashes = ray.remote(catalog.load_item_hashes)
read_user_parts = ray.remote(splits.read_user_parts)
find_cold_items = ray.remote(sequence_shards.find_cold_items)
find_cuts = ray.remote(sequence_shards.find_cuts)
sketch_times = ray.remote(recency.sketch_times)
write_sequences_shard = ray.remote(sequence_shards.write_sequences_shard)
write_popularity = ray.remote(sequence_shards.write_popularity)


def bucket_name(number: int) -> str:
    """File of a sorted bucket, inside of its scratch folder."""
    return f"bucket-{number:05d}.arrow"


@ray.remote
def partition_catalog(
    config: CatalogConfig, source: Source, scratch: Folder, number: int, num_buckets: int
) -> dict[str, Any]:
    prefix = f"source-{number:05d}"
    return once(
        scratch, f"{prefix}.json", lambda: catalog.partition_catalog(config, source, scratch, prefix, num_buckets)
    )


@ray.remote
def sort_catalog_bucket(scratch: Folder, runs: list[str], number: int) -> dict[str, Any]:
    name = bucket_name(number)
    return once(scratch, f"{name}.json", lambda: catalog.sort_catalog_bucket(scratch, runs, number, name))


@ray.remote
def partition_interactions(
    config: InteractionsConfig,
    source: Source,
    item_hashes: np.ndarray,
    scratch: Folder,
    number: int,
    num_buckets: int,
) -> dict[str, Any]:
    prefix = f"source-{number:05d}"
    return once(
        scratch,
        f"{prefix}.json",
        lambda: interactions.partition_interactions(config, source, item_hashes, scratch, prefix, num_buckets),
    )


@ray.remote
def count_users(parts: splits.UserParts) -> dict[str, int]:
    return {"users": len(parts.hashes), "null_ids": parts.null_ids}


@ray.remote
def group_users(
    scratch: Folder, runs: list[str], number: int, min_interactions: int, parts: splits.UserParts | None
) -> dict[str, Any]:
    name = bucket_name(number)
    belongs = None if parts is None else parts.contain
    return once(
        scratch,
        f"{name}.json",
        lambda: interactions.group_users(scratch, runs, number, name, min_interactions, belongs),
    )
