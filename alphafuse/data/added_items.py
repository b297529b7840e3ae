"""Reads items that come between two trainings: the catalog of a workspace of their own, in which they are embedded.

The files are read as those of `data.catalog`. They fit into memory: there are few new items in a day. Knows nothing of
jobs, or of what becomes of the items.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import pyarrow as pa

from alphafuse.config import DataConfig
from alphafuse.config.sections.data import SourceConfig
from alphafuse.data.hashing import hash_ids, hash_texts
from alphafuse.data.importers.columns import as_ids
from alphafuse.data.importers.source import find_sources
from alphafuse.data.popularity import FILE as POPULARITY
from alphafuse.data.preparation.catalog import catalog_columns, item_rows
from alphafuse.data.preparation.sources import find_catalog
from alphafuse.data.preparation.text import TextTemplate
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace

SHARD = "part-00000.parquet"


def read_new_items(data: DataConfig, path: str, known: Container[str]) -> pa.Table:
    """Read the items of a file that are not known yet: columns item_id, text and title, in the order of the ids'
    hashes. Of rows with the same id the first one counts; rows without an id are left out.

    Args:
        data: says what the columns are, and where relative paths start from.
        path: file, folder, glob or URI.

    Raises:
        DataError: there is no such file, it is damaged, or lacks a column or has one of another type.
    """
    config = data.catalog.model_copy(update={"path": path})
    template = TextTemplate(config.text)
    tables = []
    for source in find_catalog(data.model_copy(update={"catalog": config})).sources:
        for table in source.read(catalog_columns(config)):
            rows = item_rows(config, template, table, source.uri)
            ids = rows["item_id"].to_pylist()
            tables.append(rows.filter(pa.array([item is not None and item not in known for item in ids], pa.bool_())))
    items = pa.concat_tables(tables).combine_chunks()
    hashes = hash_ids(items["item_id"].combine_chunks()) if len(items) else np.array([], np.uint64)
    return items.take(pa.array(np.unique(hashes, return_index=True)[1]))  # the first of each, in ascending order


def read_item_ids(data: DataConfig, path: str) -> list[str]:
    """Read the item ids of a file, whose column has the name of `data.catalog.item_id`.

    Raises:
        DataError: there is no such file, it is damaged, or lacks the column.
    """
    column, ids = data.catalog.item_id, dict[str, None]()
    for source in find_sources("--remove", SourceConfig(path=path), data.folder):
        for table in source.read([column]):
            ids |= dict.fromkeys(as_ids(table[column], source.uri, column).drop_null().to_pylist())
    return [*ids]


def write_added_catalog(workspace: Workspace, items: pa.Table) -> None:
    """Write the artefacts `catalog` and `popularity` of new items; what is there is kept.

    Args:
        items: result of `read_new_items`, not empty.

    Raises:
        StaleError: those of other items are there.
    """
    index, none = pa.array(np.arange(len(items))), pa.array(np.zeros(len(items), np.int64))
    hashes = hash_texts(items["text"].combine_chunks())
    table = items.add_column(0, "item_index", index).append_column("text_hash", hashes)
    ids = [hash_texts(items[name].combine_chunks()).to_pylist() for name in ("item_id", "title")]
    inputs = {"added": [b"".join(row).hex() for row in zip(*ids, hashes.to_pylist(), strict=True)]}
    tables = {"catalog": (SHARD, table), "popularity": (POPULARITY, pa.table({"item_index": index, "count": none}))}
    for name, (file, rows) in tables.items():
        artifact = workspace.artifact(name)
        if not artifact.is_committed(inputs):
            artifact.write_table(file, rows, fingerprint(inputs))
            artifact.commit(inputs, {"items": len(items)}, rows=len(items))
