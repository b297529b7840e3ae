"""Parquet files are compared with their records: exchanged, damaged and cut ones are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.errors import WorkspaceError
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem import retries
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.matrices import to_column
from alphafuse.storage.workspace import Workspace


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """Two shards of equal size, whose vectors differ; a third with many row groups, whose footer is long."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.0001)
    artifact = Workspace(str(tmp_path)).artifact("features")
    for shard in range(2):
        vectors = np.random.default_rng(shard).standard_normal((5, 3)).astype(np.float32)
        table = pa.table({"item_index": np.arange(5), "features": to_column(vectors)})
        artifact.write_table(f"part-{shard}.parquet", table, fingerprint({}), first_row=5 * shard)
    table = pa.table({"item_index": np.arange(1000)})
    artifact.write_table("part-2.parquet", table, fingerprint({}), first_row=10, row_group_size=1)
    artifact.commit({}, rows=1010)
    return artifact


def test_exchanged_shards_of_equal_size_are_refused(artifact: Artifact, tmp_path: Path) -> None:
    one, two = (tmp_path / "features" / f"part-{shard}.parquet" for shard in range(2))
    first, second = one.read_bytes(), two.read_bytes()
    assert len(first) == len(second)
    one.write_bytes(second)
    two.write_bytes(first)
    for file in artifact.require().files[:2]:
        for read in (
            lambda file=file: artifact.read_table(file),
            lambda file=file: artifact.take_rows(file, np.array([3]), ["features"]),
            lambda file=file: list(artifact.iterate_parquet(file, "features", [0], 2)),
            lambda file=file: artifact.read_parquet(file, lambda parquet: parquet.metadata),
        ):
            with pytest.raises(WorkspaceError, match=r"part-.\.parquet cannot be used: its content is not that of its"):
                read()


def test_a_footer_of_any_length_is_compared(artifact: Artifact) -> None:
    file = artifact.file("part-2.parquet")
    assert artifact.take_rows(file, np.array([999, 3]), ["item_index"])["item_index"].to_pylist() == [999, 3]
    assert artifact.read_parquet(file, lambda parquet: parquet.metadata.serialized_size) > 2**16


def test_every_flipped_bit_is_an_error_or_changes_nothing(artifact: Artifact, tmp_path: Path) -> None:
    file, path = artifact.file("part-0.parquet"), tmp_path / "features" / "part-0.parquet"
    content, whole = path.read_bytes(), artifact.read_table(artifact.file("part-0.parquet"))
    unseen = 0
    for bit in range(0, 8 * len(content), 11):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(flipped))
        try:
            assert artifact.read_table(file) == whole
            unseen += 1
        except WorkspaceError:
            continue
    assert unseen < 8 * len(content) / 11 / 5  # such as bits of statistics in the headers of pages


@pytest.mark.parametrize("size", [0, 3, 11, 100])
def test_a_file_that_is_cut_is_refused(artifact: Artifact, tmp_path: Path, size: int) -> None:
    path = tmp_path / "features" / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(WorkspaceError, match="its record says"):
        artifact.read_table(artifact.file("part-0.parquet"))
