"""Prepares the catalog: item ids and texts from any source, each item once, in the order of a hash of its id.

There are three steps, each bounded in memory. The rows of the sources are put into buckets by hash; each bucket is
sorted, and duplicates are removed; the buckets are cut into shards of equal size. Knows nothing of jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alphafuse.config import CatalogConfig
from alphafuse.data.hashing import hash_ids, hash_texts
from alphafuse.data.importers.columns import as_ids, as_text
from alphafuse.data.importers.source import Source
from alphafuse.data.preparation.other_forms import count_decomposed
from alphafuse.data.preparation.scratch import RunWriter, read_bucket, read_rows, write_rows
from alphafuse.data.preparation.text import TextTemplate, tidy
from alphafuse.errors import DataError
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.filesystem.side_by_side import side_by_side
from alphafuse.storage.manifest import FileRecord

TITLE_LENGTH = 80
"""Length of the beginning of the text that replaces a missing title, in characters."""


def catalog_columns(config: CatalogConfig) -> list[str]:
    """Names of the columns that are read from the catalog."""
    title = [] if config.title is None else [config.title]
    return [config.item_id, *TextTemplate(config.text).columns, *title]


def item_rows(config: CatalogConfig, template: TextTemplate, table: pa.Table, where: str) -> pa.Table:
    """Convert rows of the catalog to the columns item_id (null where missing), text and title.

    Args:
        template: that of `config.text`.
        where: file of the rows, for messages.

    Raises:
        DataError: a column is ill-typed.
    """
    ids = as_ids(table[config.item_id], where, config.item_id)
    texts = template.render(table, where)
    titles = pc.utf8_slice_codeunits(texts, 0, TITLE_LENGTH)
    if config.title is not None:
        given = tidy(as_text(table[config.title], where, config.title))
        titles = pc.if_else(pc.equal(given, ""), titles, given)
    return pa.table({"item_id": ids, "text": texts, "title": titles})


def partition_catalog(
    config: CatalogConfig, source: Source, scratch: Folder, prefix: str, num_buckets: int
) -> dict[str, Any]:
    """Read one source and write its items as runs (columns hash, item_id, text, title).

    Items without an id are left out and counted.

    Returns:
        `runs`, the names of the runs, and `counts`: rows_read, null_ids_dropped, decomposed_ids.

    Raises:
        DataError: a column is missing or ill-typed, or the source is damaged.
    """
    template = TextTemplate(config.text)
    writer = RunWriter(scratch, prefix, num_buckets)
    counts = Counter(rows_read=0, null_ids_dropped=0, decomposed_ids=0)
    for table in source.read(catalog_columns(config)):
        rows = item_rows(config, template, table, source.uri)
        counts["rows_read"] += rows.num_rows
        counts["null_ids_dropped"] += rows["item_id"].null_count
        counts["decomposed_ids"] += count_decomposed(rows["item_id"])
        rows = rows.filter(rows["item_id"].is_valid())
        hashes = hash_ids(rows["item_id"].combine_chunks())
        writer.add(rows.add_column(0, "hash", pa.array(hashes)), hashes)
    return {"runs": writer.close(), "counts": dict(counts)}


def sort_catalog_bucket(scratch: Folder, runs: Sequence[str], bucket: int, name: str) -> dict[str, Any]:
    """Sort the items of a bucket by hash and write each once; of several rows with the same id, the first is kept.

    Returns:
        `rows`, and `counts`: duplicate_ids_dropped, duplicates_with_other_text (of those), empty_texts.

    Raises:
        DataError: two different ids have the same hash.
    """
    table = read_bucket(scratch, runs, bucket)
    assert table is not None
    order = np.argsort(table["hash"].to_numpy(), kind="stable")
    table = table.take(pa.array(order)).combine_chunks()
    hashes = table["hash"].to_numpy()
    repeated = np.zeros(len(hashes), bool)
    repeated[1:] = hashes[1:] == hashes[:-1]
    first = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(hashes))))  # [rows], first row with the same id
    firsts = table.take(pa.array(first))
    different = pc.not_equal(table["item_id"], firsts["item_id"]).to_numpy()
    if different.any():
        row = int(np.flatnonzero(different)[0])
        one, other = firsts["item_id"][row].as_py(), table["item_id"][row].as_py()
        raise DataError(
            f"the item ids {one!r} and {other!r} have the same 64-bit hash, which orders the items; rename one of them"
        )
    other_text = pc.not_equal(table["text"], firsts["text"]).to_numpy()
    kept = table.filter(pa.array(~repeated))
    write_rows(scratch, name, kept.drop_columns(["hash"]))
    counts = {
        "duplicate_ids_dropped": int(repeated.sum()),
        "duplicates_with_other_text": int(other_text.sum()),
        "empty_texts": pc.sum(pc.equal(kept["text"], "")).as_py() or 0,
    }
    return {"rows": kept.num_rows, "counts": counts}


def write_catalog_shard(
    artifact: Artifact,
    name: str,
    wanted: str,
    scratch: Folder,
    buckets: Sequence[tuple[str, int]],
    start: int,
    stop: int,
) -> None:
    """Write the items [start, stop) as a shard (docs/workspace.md).

    Args:
        buckets: names and rows of the sorted buckets, in their order.
    """
    rows = read_rows(scratch, buckets, start, stop)
    columns = {
        "item_index": pa.array(np.arange(start, stop)),
        "item_id": rows["item_id"],
        "text": rows["text"],
        "title": rows["title"],
        "text_hash": hash_texts(rows["text"].combine_chunks()),
    }
    artifact.write_table(name, pa.table(columns), wanted, first_row=start)


def load_item_hashes(artifact: Artifact) -> np.ndarray:
    """Hashes of all item ids by item index, ascending: uint64 [items]."""

    def read(shard: FileRecord) -> np.ndarray:
        return hash_ids(artifact.read_column(shard, "item_id").combine_chunks())

    return np.concatenate(side_by_side(read, artifact.require().files))
