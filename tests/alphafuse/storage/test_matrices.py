"""Matrices in Parquet shards: any range is read back as it was written."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphafuse.errors import WorkspaceError
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem import retries
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.matrices import VectorType, from_column, iterate_rows, read_rows, to_column, to_lists
from alphafuse.storage.workspace import Workspace

INPUTS = {"made by": "hand"}
CUTS = (0, 23, 24, 60, 61)
MATRIX = np.random.default_rng(0).standard_normal((CUTS[-1], 3)).astype(np.float16)
MISSING = np.arange(CUTS[-1]) % 7 == 2


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Artifact:
    """Four shards with row groups of ten rows, and a file of the same artefact that holds no rows."""
    result = write(tmp_path_factory.mktemp("matrices"))
    result.write_file("quarantine-00001.parquet", b"read by nobody", fingerprint(INPUTS))
    result.commit(INPUTS)
    return result


def write(folder: Path) -> Artifact:
    result = Workspace(str(folder)).artifact("embeddings")
    for number, (first, end) in enumerate(pairwise(CUTS)):
        table = pa.table({"embedding": to_column(MATRIX[first:end], MISSING[first:end])})
        name = f"part-{number:05d}.parquet"
        result.write_table(name, table, fingerprint(INPUTS), first_row=first, row_group_size=10)
    result.commit(INPUTS)
    return result


def expected(start: int, stop: int) -> np.ndarray:
    return np.where(MISSING[start:stop, None], 0, MATRIX[start:stop])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_columns_keep_type_and_bits(dtype):
    matrix = MATRIX.astype(dtype)

    column = to_column(matrix)
    found, present = from_column(column)

    assert column.type == VectorType(np.dtype(dtype), 3)
    assert column.storage[5].as_py() == matrix[5].tobytes()  # the value for a reader that does not know the type
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, matrix)
    assert present.all()


def test_missing_rows_are_null_in_the_column_and_zero_in_the_matrix():
    matrix = MATRIX.copy()
    matrix[MISSING] = np.nan

    column = to_column(matrix, MISSING)
    found, present = from_column(column)

    assert column.null_count == MISSING.sum()
    np.testing.assert_array_equal(present, ~MISSING)
    np.testing.assert_array_equal(found, expected(0, CUTS[-1]))


def test_lists_for_other_programs():
    assert to_lists(MATRIX[:4]).to_pylist() == MATRIX[:4].tolist()


def test_a_matrix_that_is_not_contiguous():
    matrix = np.asfortranarray(MATRIX)[::2]

    np.testing.assert_array_equal(from_column(to_column(matrix))[0], matrix)


@given(st.integers(0, CUTS[-1]), st.integers(0, CUTS[-1]))
def test_slices_of_a_column(start, stop):
    column = to_column(MATRIX, MISSING).slice(start, max(stop - start, 0))

    found, present = from_column(column)

    stop = max(start, stop)
    np.testing.assert_array_equal(found, expected(start, stop))
    np.testing.assert_array_equal(present, ~MISSING[start:stop])


def test_chunks_of_a_column():
    column = to_column(MATRIX, MISSING)
    chunked = pa.chunked_array([column.slice(0, 20), column.slice(20, 0), column.slice(20)])

    np.testing.assert_array_equal(from_column(chunked.slice(5, 40))[0], expected(5, 45))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, CUTS[-1] - 1), st.integers(1, CUTS[-1]), st.integers(1, 30))
def test_blocks_cover_the_range_once_and_in_order(artifact, start, length, block_rows):
    stop = min(start + length, CUTS[-1])

    blocks = list(iterate_rows(artifact, "embedding", start, stop, block_rows))

    ends = [first + len(block) for first, block, _ in blocks]
    assert [first for first, _, _ in blocks] == [start, *ends[:-1]]
    assert ends[-1] == stop
    assert all(0 < len(block) <= block_rows for _, block, _ in blocks)
    np.testing.assert_array_equal(np.concatenate([block for _, block, _ in blocks]), expected(start, stop))
    np.testing.assert_array_equal(np.concatenate([present for _, _, present in blocks]), ~MISSING[start:stop])


@pytest.mark.parametrize(("start", "stop"), [(0, 61), (22, 25), (23, 24), (30, 41), (60, 61)])
def test_read_rows_of_any_range_are_float32(artifact, start, stop):
    rows = read_rows(artifact, "embedding", start, stop)

    assert rows.dtype == np.float32
    assert rows.shape == (stop - start, 3)
    np.testing.assert_array_equal(rows, expected(start, stop))


@pytest.mark.parametrize(("start", "stop"), [(61, 70), (30, 30)])
def test_a_range_without_rows(artifact, start, stop):
    assert list(iterate_rows(artifact, "embedding", start, stop)) == []
    with pytest.raises(WorkspaceError, match=re.escape(f"no rows in [{start}, {stop})")):
        read_rows(artifact, "embedding", start, stop)


def test_only_the_shards_of_the_range_are_opened(tmp_path):
    artifact = write(tmp_path)
    (tmp_path / "embeddings" / "part-00000.parquet").unlink()

    np.testing.assert_array_equal(read_rows(artifact, "embedding", 24, 61), expected(24, 61))


def test_a_truncated_shard_is_named(tmp_path):
    artifact = write(tmp_path)
    path = tmp_path / "embeddings" / "part-00002.parquet"
    path.write_bytes(path.read_bytes()[:-9])

    with pytest.raises(WorkspaceError, match=r"part-00002\.parquet cannot be used.*--redo embed"):
        read_rows(artifact, "embedding", 0, 61)


def test_garbage_inside_of_a_shard_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)
    artifact = write(tmp_path)
    path = tmp_path / "embeddings" / "part-00002.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)

    with pytest.raises(WorkspaceError, match=r"part-00002\.parquet cannot be used"):
        read_rows(artifact, "embedding", 24, 60)


def test_a_missing_shard_is_named(tmp_path):
    artifact = write(tmp_path)
    (tmp_path / "embeddings" / "part-00001.parquet").unlink()

    with pytest.raises(WorkspaceError, match=r"part-00001\.parquet cannot be used"):
        read_rows(artifact, "embedding", 0, 61)


def test_a_missing_column_is_named(artifact):
    with pytest.raises(WorkspaceError, match=r"part-00000\.parquet cannot be used.*features"):
        read_rows(artifact, "features", 0, 61)


def test_a_column_that_is_no_matrix_is_refused(tmp_path):
    artifact = write(tmp_path)
    table = pa.table({"embedding": [1.0] * 23})
    artifact.write_table("part-00000.parquet", table, fingerprint(INPUTS))
    artifact.commit(INPUTS)

    with pytest.raises(WorkspaceError, match="does not hold vectors"):
        read_rows(artifact, "embedding", 0, 61)


def test_an_artefact_that_is_not_finished(tmp_path):
    with pytest.raises(WorkspaceError, match="run the stage 'embed' first"):
        read_rows(Workspace(str(tmp_path)).artifact("embeddings"), "embedding", 0, 1)
