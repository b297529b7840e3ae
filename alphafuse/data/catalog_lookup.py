"""Looks items up in the catalog: ids and titles by item index, and item indices by id.

Reads the catalog's shards as a stream or by row groups; the names of all items are never in memory at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alphafuse.storage.artifact import Artifact


def item_names(catalog: Artifact, items: np.ndarray, columns: Sequence[str] = ("item_id", "title")) -> pa.Table:
    """The `item_index` and text columns of some items, by ascending index, each once.

    Only the row groups that hold one of them are read.

    Args:
        items: any shape, item indices; negative ones are left out.
    """
    wanted = np.unique(items[items >= 0])
    tables = []
    for file in catalog.require().files:
        rows = wanted[(wanted >= file.first_row) & (wanted < file.first_row + file.rows)] - file.first_row
        if len(rows):
            tables.append(catalog.take_rows(file, rows, ["item_index", *columns]))
    schema = pa.schema([("item_index", pa.int64()), *((column, pa.string()) for column in columns)])
    return pa.concat_tables(tables) if tables else schema.empty_table()


def find_ids(catalog: Artifact, item_ids: pa.Array) -> dict[str, int]:
    """Item index of each of the given ids that the catalog knows."""
    wanted = pc.unique(item_ids)
    found: dict[str, int] = {}
    for file in catalog.require().files:
        table = catalog.read_table(file, ["item_index", "item_id"])
        table = table.filter(pc.is_in(table["item_id"], wanted))
        found.update(zip(table["item_id"].to_pylist(), table["item_index"].to_pylist(), strict=True))
    return found
