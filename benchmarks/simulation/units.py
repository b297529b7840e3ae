"""Units of the work of stages, really done on this machine: a stage of any size is so many of them.

A unit is what one task does at a time, such as a shard; its size does not depend on the catalog. Functions and formats
are the project's own. CPU seconds include reading and writing a local disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from alphafuse.config import CatalogConfig, InteractionsConfig, SourceConfig, SplitConfig
from alphafuse.data.hashing import hash_ids
from alphafuse.data.importers.source import Source, find_sources
from alphafuse.data.preparation.catalog import (
    load_item_hashes,
    partition_catalog,
    sort_catalog_bucket,
    write_catalog_shard,
)
from alphafuse.data.preparation.interactions import group_users, partition_interactions
from alphafuse.data.preparation.sequence_shards import ShardPlan, write_popularity, write_sequences_shard
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.language.plan import make_plan
from alphafuse.language.store import ITEM_COLUMNS, EmbeddingStore
from alphafuse.language.text_encoders.encoder import Encoded
from alphafuse.nullspace.moments import Moments
from alphafuse.serving.export_files import vectors_to_bytes
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.matrices import to_column, to_lists
from alphafuse.storage.workspace import Workspace
from benchmarks.simulation.made_up_log import BLOCK_USERS, MadeUpLog

ITEMS = 50_000
"""Items of a shard: the default of `data.shard_rows`, and that of the export."""
WORDS = 40
"""Words of a text."""

T = TypeVar("T")


@dataclass(frozen=True)
class Unit:
    """Cost of one item or interaction of a unit.

    Attributes:
        cpu: seconds of a core.
        stored: bytes that it takes on storage.
    """

    cpu: float
    stored: float = 0.0


def measure_units(folder: Path, num_items: int, dim: int, hidden_dim: int, mean_length: int) -> dict[str, Unit]:
    """Do one unit of each kind; costs are those of an item, or for the log of an interaction.

    Args:
        folder: an empty folder.
        num_items: number of items in the catalog: the more there are, the less a log is compressed.
        dim, hidden_dim: dimensions of the language embeddings and of the model.
        mean_length: mean number of interactions of a user.
    """
    workspace, scratch = Workspace(str(folder / "run")), Folder(str(folder / "scratch"))
    hash_ids(pa.array(["imports pandas"]))
    units = _measure_catalog(folder, workspace, scratch)
    units |= _measure_log(folder, workspace, scratch, mean_length)
    units |= _measure_reading(folder, num_items, mean_length)
    units |= _measure_vectors(workspace, dim, hidden_dim)
    return units


def _measure_catalog(folder: Path, workspace: Workspace, scratch: Folder) -> dict[str, Unit]:
    source = _write_source(folder / "items.parquet", _catalog_table())
    config, artifact = CatalogConfig(path=source.uri), workspace.artifact("catalog")
    runs, partition = _timed(lambda: partition_catalog(config, source, scratch, "items", 1)["runs"])
    _, sort = _timed(lambda: sort_catalog_bucket(scratch, runs, 0, "sorted.arrow"))
    wanted = fingerprint({})
    _, write = _timed(
        lambda: write_catalog_shard(artifact, "part-0.parquet", wanted, scratch, [("sorted.arrow", ITEMS)], 0, ITEMS)
    )
    artifact.commit({}, rows=ITEMS)
    _, hashes = _timed(lambda: load_item_hashes(artifact))
    sizes = {name: size or 0 for name, size in (scratch.sizes() | artifact.folder.sizes()).items()}
    return {
        "partition item": Unit(partition / ITEMS, sizes[runs[0]] / ITEMS),
        "source item": Unit(0.0, source.bytes / ITEMS),
        "sort item": Unit(sort / ITEMS, sizes["sorted.arrow"] / ITEMS),
        "write item": Unit(write / ITEMS, sizes["part-0.parquet"] / ITEMS),
        "hash item": Unit(hashes / ITEMS),
        "item in memory": Unit(0.0, _catalog_table().nbytes / ITEMS),
    }


def _measure_log(folder: Path, workspace: Workspace, scratch: Folder, mean_length: int) -> dict[str, Unit]:
    log = MadeUpLog(ITEMS, 2 * BLOCK_USERS, mean_length).read([0, 1])
    names = np.array([f"user-{number:010d}" for number in range(log.num_users)])
    users = pa.array(np.repeat(names, np.diff(log.starts)))
    ids = pa.array([f"item-{number:010d}" for number in range(ITEMS)]).take(pa.array(log.items))
    table = pa.table({"user_id": users, "item_id": ids, "timestamp": np.arange(len(ids)) + 1.6e9})
    source, count = _write_source(folder / "log.parquet", table), len(ids)
    config, catalog, sequences = InteractionsConfig(path=source.uri), workspace.artifact("catalog"), "sequences"
    hashes = load_item_hashes(catalog)
    found, partition = _timed(lambda: partition_interactions(config, source, hashes, scratch, "log", 1))
    _, group = _timed(lambda: group_users(scratch, found["runs"], 0, "users.arrow", 5))
    artifact, plan = workspace.artifact(sequences), ShardPlan("users.arrow", "part-0.parquet", 0)
    split = SplitConfig(kind="leave_one_out")
    _, write = _timed(
        lambda: write_sequences_shard(artifact, fingerprint({}), scratch, plan, split, 0, (None, None), None, None, 0.0)
    )
    artifact.commit({})
    _, popularity = _timed(lambda: write_popularity(workspace, fingerprint({}), ITEMS, None))
    sizes = {name: size or 0 for name, size in (scratch.sizes() | artifact.folder.sizes()).items()}
    return {
        "source interaction": Unit(0.0, source.bytes / count),
        "partition interaction": Unit(partition / count, sum(sizes[name] for name in found["runs"]) / count),
        "group interaction": Unit(group / count, sizes["users.arrow"] / count),
        "write interaction": Unit(write / count),
        "count interaction": Unit(popularity / count),
    }


def _measure_reading(folder: Path, num_items: int, mean_length: int) -> dict[str, Unit]:
    log = MadeUpLog(num_items, 2 * BLOCK_USERS, mean_length).read([0, 1])
    artifact = Workspace(str(folder / "log")).artifact("sequences")
    ends = pa.array(log.train_end, pa.int32())
    items = pa.ListArray.from_arrays(pa.array(log.starts, pa.int32()), pa.array(log.items))
    names = [f"user-{number:010d}" for number in range(log.num_users)]
    columns = {"user_id": names, "items": items, "train_end": ends, "validation_end": ends}
    file = artifact.write_table("part-0.parquet", pa.table(columns), fingerprint({}))
    artifact.commit({})
    store = SequenceStore(Workspace(str(folder / "log")))
    _, read = _timed(store.read_all)
    return {"read interaction": Unit(read / len(log.items), file.bytes / len(log.items))}


def _measure_vectors(workspace: Workspace, dim: int, hidden_dim: int) -> dict[str, Unit]:
    generator = np.random.default_rng(0)
    inputs: dict[str, Any] = {"encoder": {}}
    embeddings = generator.standard_normal((ITEMS, dim), np.float32).astype(np.float16)
    items = workspace.artifact("catalog").read_table(workspace.artifact("catalog").require().files[0], ITEM_COLUMNS)
    store = EmbeddingStore(workspace.artifact("embeddings"), inputs)
    encoded = Encoded(embeddings, {})
    hashes, index = items["text_hash"].chunk(0), store.index()
    batch, write_batch = _timed(lambda: store.write_vectors("batch.parquet", hashes, encoded, index))
    place = np.zeros(ITEMS, np.int32), np.arange(ITEMS, dtype=np.int32)
    gathered, gather = _timed(lambda: store.gather([(batch.name, batch)], *place, dim, "float16"))
    shard, assemble = _timed(lambda: store.write_shard("part-0.parquet", items, 0, gathered))
    block = embeddings[: 64 * 2**20 // (8 * dim)]
    _, moments = _timed(lambda: Moments.of(block))
    features = generator.standard_normal((ITEMS, hidden_dim), np.float32)
    table = pa.table({"item_index": np.arange(ITEMS), "features": to_column(features)})
    feature, write_features = _timed(lambda: workspace.artifact("features").write_table("part-0.parquet", table, ""))
    vectors = _timed(lambda: vectors_to_bytes(torch.from_numpy(features), "cosine"))
    export = workspace.artifact("export")
    named = pa.table([items["item_index"], items["item_id"], pa.array(_titles()), to_lists(features)], list("abcd"))
    exported, write_items = _timed(lambda: export.write_table("items.parquet", named, ""))
    written, write_vectors = _timed(lambda: export.write_file("vectors.safetensors", vectors[0], ""))
    texts = np.random.default_rng(0).integers(0, 2**63, (10**6, 2)).astype(np.uint64)
    _, plan = _timed(lambda: make_plan([], np.split(texts, 20), 512))
    return {
        "write vector": Unit(write_batch / ITEMS, batch.bytes / ITEMS),
        "assemble vector": Unit((gather + assemble) / ITEMS, shard.bytes / ITEMS),
        "add vector to moments": Unit(moments / len(block)),
        "write features": Unit(write_features / ITEMS, feature.bytes / ITEMS),
        "export item": Unit(write_items / ITEMS, exported.bytes / ITEMS),
        "export vector": Unit((vectors[1] + write_vectors) / ITEMS, written.bytes / ITEMS),
        "plan item": Unit(plan / len(texts)),
    }


def _catalog_table() -> pa.Table:
    words = np.array(["".join(letters) for letters in np.random.default_rng(0).choice(list("aeioklmnrst"), (4096, 6))])
    texts = [" ".join(words[chosen]) for chosen in np.random.default_rng(1).integers(0, len(words), (ITEMS, WORDS))]
    return pa.table({"item_id": [f"item-{number:010d}" for number in range(ITEMS)], "text": texts})


def _titles() -> list[str]:
    return [f"{'A title of some words':40}{number}" for number in range(ITEMS)]


def _write_source(path: Path, table: pa.Table) -> Source:
    pq.write_table(table, path)
    return find_sources("data", SourceConfig(path=str(path)), ".")[0]


def _timed(function: Callable[[], T]) -> tuple[T, float]:
    begin = time.process_time()
    result = function()
    return result, time.process_time() - begin
