"""The Ray tasks of the stage `prepare`: one for each piece of work; what is finished is not done again.

The tasks meet in a scratch folder; the stage decides their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from alphafuse.config import CatalogConfig, DataConfig, InteractionsConfig, SourceConfig
from alphafuse.data.importers.source import Source, find_sources, unread_files
from alphafuse.data.preparation import catalog, interactions, sequence_shards, splits
from alphafuse.data.preparation.scratch import once
from alphafuse.storage.folder import Folder

write_catalog_shard = ray.remote(catalog.write_catalog_shard)
load_item_hashes = ray.remote(catalog.load_item_hashes)
read_user_parts = ray.remote(splits.read_user_parts)
find_cold_items = ray.remote(sequence_shards.find_cold_items)
find_cuts = ray.remote(sequence_shards.find_cuts)
write_sequences_shard = ray.remote(sequence_shards.write_sequences_shard)
write_popularity = ray.remote(sequence_shards.write_popularity)


@dataclass(frozen=True)
class Sources:
    """The files that the configuration names; `unread` are files beside them that are in no known format."""

    catalog: list[Source]
    interactions: list[Source]
    split: list[Source]
    unread: list[str]


def bucket_name(number: int) -> str:
    """File of a sorted bucket, inside of its scratch folder."""
    return f"bucket-{number:05d}.arrow"


@ray.remote
def find_all(data: DataConfig) -> Sources:
    """Find the sources and check the columns of the first file of each before any work begins."""
    items = find_sources("data.catalog.path", data.catalog, data.folder)
    items[0].require(catalog.catalog_columns(data.catalog))
    actions = find_sources("data.interactions.path", data.interactions, data.folder)
    actions[0].require(interactions.interaction_columns(data.interactions))
    split = []
    if data.split.path is not None:
        split = find_sources("data.split.path", SourceConfig(path=data.split.path), data.folder)
        split[0].require(["user_id", "split"])
    unread = [name for config in (data.catalog, data.interactions) for name in unread_files(config, data.folder)]
    return Sources(items, actions, split, list(dict.fromkeys(unread)))


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
