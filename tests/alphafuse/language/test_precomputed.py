"""Vectors made elsewhere: looked up by id, refused with the file and the cause."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alphafuse.config import EmbedConfig
from alphafuse.errors import ConfigError, DataError
from alphafuse.language.precomputed import common_dim, find_precomputed, match_vectors, partition_vectors
from alphafuse.language.text_encoders.encoder import Encoded
from alphafuse.storage.filesystem.folder import Folder

IDS = [f"item {number}" for number in range(30)]
VECTORS = np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)


def configuration(path: str, **settings: Any) -> EmbedConfig:
    return EmbedConfig(engine="precomputed", precomputed=path, storage_dtype="float32", **settings)


def write_parquet(folder: Path, ids: list[Any], vectors: list[Any], kind: pa.DataType | None = None) -> None:
    table = pa.table({"item_id": ids, "embedding": pa.array(vectors, kind or pa.list_(pa.float32()))})
    pq.write_table(table, folder / "vectors.parquet", row_group_size=7)


def write_npy(folder: Path, ids: list[str], vectors: np.ndarray) -> None:
    np.save(folder / "vectors.npy", vectors)
    (folder / "ids.txt").write_text("".join(f"{item_id}\n" for item_id in ids))


NPY = {"path": "vectors.npy", "precomputed_ids": "ids.txt"}


def look_up(config: EmbedConfig, folder: str, item_ids: list[str], num_buckets: int = 3) -> tuple[Encoded, int]:
    """The work of the stage, without Ray: vectors of the items in the given order, and the number of all vectors."""
    files = find_precomputed(config, folder)
    scratch = Folder(f"memory://scratch-{uuid.uuid4().hex}")
    parts = [
        partition_vectors(files, source, scratch, f"source-{number}", num_buckets)
        for number, source in enumerate(files.vectors)
    ]
    runs = [name for part in parts for name in part["runs"]]
    matched, _ = match_vectors(pa.array(item_ids), scratch, runs, num_buckets, common_dim(files, parts), config)
    return matched, sum(part["rows"] for part in parts)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("kind", ["npy", "list", "fixed", "half", "folder"])
def test_items_find_their_vectors(tmp_path: Path, kind: str, remote: bool) -> None:
    settings: dict[str, Any] = {"path": "vectors.parquet"}
    if kind == "npy":
        write_npy(tmp_path, IDS, VECTORS)
        settings = NPY
    elif kind == "folder":
        for number, rows in enumerate((slice(0, 11), slice(11, 30))):
            (tmp_path / "parts").mkdir(exist_ok=True)
            write_parquet(tmp_path, IDS[rows], list(VECTORS[rows]))
            (tmp_path / "vectors.parquet").rename(tmp_path / "parts" / f"{number}.parquet")
        settings = {"path": "parts"}
    else:
        value = pa.float16() if kind == "half" else pa.float32()
        rows = list(VECTORS.astype(np.float16) if kind == "half" else VECTORS)
        write_parquet(tmp_path, IDS, rows, pa.list_(value, 6) if kind == "fixed" else pa.list_(value))
    folder = str(tmp_path)
    if remote:
        folder = f"memory://{tmp_path.name}-{kind}"
        fsspec.filesystem("memory").put(str(tmp_path), folder, recursive=True)
    asked = ["item 7", "stranger", "item 0", "item 29"]
    found, rows_there = look_up(configuration(**settings, normalize=True), folder, asked)
    assert rows_there == 30
    expected = VECTORS[[7, 0, 29]].astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found.vectors[[0, 2, 3]], expected, atol=1e-3 if kind == "half" else 1e-6)
    assert found.failures == {1: "no vector: the item is not among the precomputed"}
    assert not found.vectors[1].any()


def test_vectors_that_are_not_finite_fail_alone(tmp_path: Path) -> None:
    vectors = VECTORS.copy()
    vectors[3, 2], vectors[5, 0], vectors[6] = np.nan, np.inf, 0
    write_npy(tmp_path, IDS, vectors)
    found, _ = look_up(configuration(**NPY), str(tmp_path), IDS)
    assert {position: reason.partition(":")[0] for position, reason in found.failures.items()} == {
        3: "not finite", 5: "not finite", 6: "zero vector",
    }  # fmt: skip


def test_integer_ids_and_rows_without_vector(tmp_path: Path) -> None:
    write_parquet(tmp_path, [10, 11, 12], [[1.0, 0], None, [0, 1.0]])
    found, rows_there = look_up(configuration("vectors.parquet"), str(tmp_path), ["12", "11", "10"])
    assert rows_there == 2
    assert found.vectors.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert list(found.failures) == [1]


def test_identity_follows_the_content(tmp_path: Path) -> None:
    identities = []
    for scale in (1, 1, 2):
        write_npy(tmp_path, IDS, VECTORS * scale)
        identities.append(find_precomputed(configuration(**NPY), str(tmp_path)).identity())
    assert identities[0] == identities[1] != identities[2]


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["a", "b"], [[1.0, 2.0], [1.0]], "vector of 'b' has 1 numbers, those before it 2"),
        ([f"i{n}" for n in range(9)], [[1.0, 2.0]] * 8 + [[1.0, 2.0, 3.0]], "'i8' has 3 numbers, those before it 2"),
        (["a"], [[]], "vector of 'a' is empty"),
        (
            ["a", "a"],
            [[1.0], [2.0]],
            r"\(vectors.parquet\): the id 'a' stands there twice, .*\(\[1, …\] and \[2, …\]\)",
        ),
        (["a", None], [[1.0], [2.0]], "1 rows have no id"),
        ([0.5], [[1.0]], "'item_id' holds ids that are not whole numbers"),
        (["a"], [None], "has no rows with a vector"),
    ],
)
def test_bad_parquet_is_refused(tmp_path: Path, ids: list[Any], vectors: list[Any], message: str) -> None:
    write_parquet(tmp_path, ids, vectors)
    with pytest.raises(DataError, match=message):
        look_up(configuration("vectors.parquet"), str(tmp_path), ["a"])


def test_parquet_of_other_columns_and_types_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path, ["a"], [[1]], pa.list_(pa.int64()))
    with pytest.raises(DataError, match="must be lists of floats, found list<"):
        look_up(configuration("vectors.parquet"), str(tmp_path), ["a"])
    with pytest.raises(DataError, match=r"has no column 'vector'\. Its columns: item_id, embedding"):
        look_up(configuration("vectors.parquet", precomputed_vector_column="vector"), str(tmp_path), ["a"])


@pytest.mark.parametrize(
    ("ids", "matrix", "message"),
    [
        (IDS[:-1], VECTORS, "has 30 rows, but .*ids.txt has 29 ids"),
        (IDS, VECTORS[0], r"expected a matrix of floats, rows first, found shape \(6,\) of float32"),
        (IDS, VECTORS.astype(int), "found shape .* of int64"),
        (["a", *IDS[:-2], "a"], VECTORS, r"\(vectors.npy\): the id 'a' stands there twice"),
    ],
)
def test_bad_matrices_are_refused(tmp_path: Path, ids: list[str], matrix: np.ndarray, message: str) -> None:
    write_npy(tmp_path, ids, matrix)
    with pytest.raises(DataError, match=message):
        look_up(configuration(**NPY), str(tmp_path), ["a"])


def test_files_of_different_widths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name, vectors in (("a", [[1.0, 2.0]]), ("b", [[1.0, 2.0, 3.0]])):
        write_parquet(tmp_path, [name], vectors)
        (tmp_path / "vectors.parquet").rename(tmp_path / "parts" / f"{name}.parquet")
    with pytest.raises(DataError, match=r"different lengths: 2 numbers in .*a\.parquet, 3 numbers in .*b\.parquet"):
        look_up(configuration("parts"), str(tmp_path), ["a"])


def test_other_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vectors.csv").write_text("item_id,embedding\na,1\n")
    with pytest.raises(DataError, match=r"vectors\.csv is neither Parquet nor a \.npy matrix"):
        look_up(configuration("vectors.csv"), str(tmp_path), ["a"])


@pytest.mark.parametrize("header", [b"{'descr': (", b"{'descr': 1, ", b'"""', b"[]", b"{}", b"\x00" * 9])
def test_a_header_that_is_damaged(tmp_path: Path, header: bytes) -> None:
    write_npy(tmp_path, IDS, VECTORS)
    content = (tmp_path / "vectors.npy").read_bytes()
    (tmp_path / "vectors.npy").write_bytes(content[:10] + header + content[10 + len(header) :])
    with pytest.raises(DataError, match=r"vectors\.npy cannot be read as a \.npy matrix"):
        look_up(configuration(**NPY), str(tmp_path), ["a"])


@pytest.mark.parametrize("name", ["vectors.npy", "vectors.parquet"])
def test_truncated_and_missing_files_are_named(tmp_path: Path, name: str) -> None:
    write_npy(tmp_path, IDS, VECTORS)
    write_parquet(tmp_path, IDS, list(VECTORS))
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-50])
    settings = NPY if name == "vectors.npy" else {"path": name}
    with pytest.raises(DataError, match=f"{name} cannot be read as"):
        look_up(configuration(**settings), str(tmp_path), ["a"])
    path.unlink()
    with pytest.raises(DataError, match=f"there is no file .*{name}"):
        look_up(configuration(**settings), str(tmp_path), ["a"])


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.array([[{"an": "object"}]], object), allow_pickle=True)
    (tmp_path / "ids.txt").write_text("a\n")
    with pytest.raises(DataError, match=r"cannot be read as a \.npy matrix: .*Python objects"):
        look_up(configuration(**NPY), str(tmp_path), ["a"])


def test_ids_go_with_a_matrix_and_with_nothing_else(tmp_path: Path) -> None:
    write_npy(tmp_path, IDS, VECTORS)
    write_parquet(tmp_path, IDS, list(VECTORS))
    with pytest.raises(ConfigError, match="precomputed_ids must name its ids"):
        look_up(configuration("vectors.npy"), str(tmp_path), ["a"])
    with pytest.raises(ConfigError, match="Parquet has its own id column"):
        look_up(configuration("vectors.parquet", precomputed_ids="ids.txt"), str(tmp_path), ["a"])


def test_rows_that_repeat_id_and_vector_count_once(tmp_path: Path) -> None:
    vectors = [[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [3.0, 4.0], [3.0, 4.0]]
    write_parquet(tmp_path, ["a", "b", "a", "b", "b"], vectors)
    config = configuration("vectors.parquet", normalize=False)
    files, scratch = find_precomputed(config, str(tmp_path)), Folder(f"memory://scratch-{uuid.uuid4().hex}")
    parts = partition_vectors(files, files.vectors[0], scratch, "source", 1)
    found, repeats = match_vectors(pa.array(["b", "c"]), scratch, parts["runs"], 1, 2, config)
    assert found.vectors.tolist() == [[3.0, 4.0], [0.0, 0.0]]
    assert list(found.failures) == [1]
    assert repeats == 2  # of b; those of a are no items


def test_ids_may_be_integers_and_files_of_ids_have_a_byte_order_mark(tmp_path: Path) -> None:
    write_parquet(tmp_path, [7, 8], [[1.0], [2.0]])
    found, _ = look_up(configuration("vectors.parquet", normalize=False), str(tmp_path), ["8", "7"])
    assert found.vectors.tolist() == [[2.0], [1.0]]
    write_npy(tmp_path, ["7", "8"], np.array([[1.0], [2.0]], np.float32))
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbf7\r\n8\r\n")
    found, _ = look_up(configuration(**NPY, normalize=False), str(tmp_path), ["8", "7"])
    assert found.vectors.tolist() == [[2.0], [1.0]]
