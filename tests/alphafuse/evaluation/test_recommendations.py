"""The table of recommendations, where many users get an item with a long title."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alphafuse.data.sequences import Sequences
from alphafuse.data.users import Histories
from alphafuse.evaluation.ranking.top_lists import NO_ITEM
from alphafuse.evaluation.recommendations import Recommendations
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace

LONG = "x" * 200_000
USERS = 2000


def test_a_long_title_costs_its_own_length(tmp_path: Path) -> None:
    """As plain texts, the titles would be 400 MB."""
    workspace, wanted = Workspace(str(tmp_path)), fingerprint({})
    catalog = workspace.artifact("catalog")
    titles = ["A", LONG, "C"]
    table = pa.table({"item_index": [0, 1, 2], "item_id": ["a", "b", "c"], "title": titles})
    catalog.write_table("part-0.parquet", table, wanted)
    catalog.commit({})
    none = np.zeros(USERS, np.int64)
    names = pa.chunked_array([pa.array([f"u{user}" for user in range(USERS)])])
    histories = Histories(Sequences(none, np.arange(USERS + 1), none, none, names), np.arange(USERS))
    items = np.array([[1, 2], [0, NO_ITEM]] * (USERS // 2))
    artifact, before = workspace.artifact("recommendations"), pa.total_allocated_bytes()
    best = Recommendations(catalog, histories, items, np.ones(items.shape))
    artifact.write_table("part-0.parquet", best.table, wanted)
    assert pa.total_allocated_bytes() - before < 10 * len(LONG)
    assert [[shown.title for shown in best.of(row)] for row in (0, 1)] == [[LONG, "C"], ["A"]]

    written = pq.ParquetFile(tmp_path / "recommendations" / "part-0.parquet")
    assert written.schema_arrow.field("titles").type.value_type == pa.string()
    assert written.read_row_group(0, ["item_ids"])["item_ids"].to_pylist() == [["b", "c"], ["a"]] * (USERS // 2)
    assert (tmp_path / "recommendations" / "part-0.parquet").stat().st_size < 2 * len(LONG)
