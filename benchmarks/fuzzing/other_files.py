"""Vectors that were made elsewhere, and files that say which users train: read as an independent reader finds them, or
refused."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from alphafuse.config import EmbedConfig, SourceConfig
from alphafuse.data.hashing import hash_ids
from alphafuse.data.importers.source import find_sources
from alphafuse.data.preparation.splits import NAMES, read_user_parts
from alphafuse.errors import AlphafuseError
from alphafuse.language.precomputed import find_precomputed
from benchmarks.fuzzing.damage import Change, applied, changes
from benchmarks.fuzzing.exploration import Outcome, Target, refusal
from benchmarks.fuzzing.source_files import ids, independent_rows, name_of

DIM = 3


@dataclass(frozen=True)
class OtherFile:
    """A file, and changes of it.

    Attributes:
        names: ids of its rows.
        seed: seed of the numbers, or of the parts, beside them.
        form: name of the file.
    """

    names: tuple[str, ...]
    seed: int
    form: str
    damage: tuple[Change, ...]

    def write(self, folder: Path) -> Path:
        """Write the file, and ids beside a matrix; returns its path."""
        generator = np.random.default_rng(self.seed)
        vectors = generator.standard_normal((len(self.names), DIM)).astype(np.float32)
        parts = generator.choice([*NAMES, "Test"], len(self.names), p=[0.33, 0.33, 0.33, 0.01]).tolist()
        sink = io.BytesIO()
        if self.form.endswith(".npy"):
            np.save(sink, vectors)
            (folder / "ids.txt").write_text("\n".join(self.names), encoding="utf-8", newline="")
        elif self.form == "split.csv":
            text = io.StringIO(newline="")
            csv.writer(text).writerows([("user_id", "split"), *zip(self.names, parts, strict=True)])
            sink.write(text.getvalue().encode())
        elif self.form == "split.parquet":
            pq.write_table(pa.table({"user_id": list(self.names), "split": parts}), sink)
        else:
            kind = pa.list_(pa.float32(), DIM) if self.form.startswith("fixed") else pa.list_(pa.float64())
            lists = pa.array(vectors.tolist(), kind)
            pq.write_table(pa.table({"item_id": list(self.names), "embedding": lists}), sink)
        path = folder / self.form
        path.write_bytes(applied(list(self.damage), sink.getvalue()))
        return path


def _cases(*forms: str) -> st.SearchStrategy[OtherFile]:
    names = st.lists(ids, min_size=1, max_size=8).map(tuple)
    damage = st.lists(changes, max_size=2).map(tuple)
    return st.builds(OtherFile, names, st.integers(0, 9), st.sampled_from(forms), damage)


def _check(read: Callable[[Path], Any], expect: Callable[[Path], Any]) -> Callable[[OtherFile, Path], Outcome]:
    def check(case: OtherFile, folder: Path) -> Outcome:
        path = case.write(folder)
        try:
            found = read(path)
        except AlphafuseError as error:
            return refusal(error, case.form, "ids.txt", "data.split.path")
        wanted = expect(path)
        assert found == wanted, f"read {found!r}\nthere is {wanted!r}"
        return "right"

    return check


def _read_vectors(path: Path) -> list[tuple[str, bytes]]:
    """Ids and the bytes of their vectors, as the stage `embed` reads them."""
    ids = str(path.parent / "ids.txt") if path.suffix == ".npy" else None
    config = EmbedConfig(engine="precomputed", precomputed=str(path), precomputed_ids=ids)
    files = find_precomputed(config, str(path.parent))
    blocks = [block for source in files.vectors for block in files.read(source)]
    return [
        (name, vector.tobytes())
        for names, vectors in blocks
        for name, vector in zip(names.to_pylist(), vectors, strict=True)
    ]


def _vectors_there(path: Path) -> list[tuple[str | None, bytes]]:
    if path.suffix == ".npy":
        matrix = np.load(path, allow_pickle=False)
        names = (path.parent / "ids.txt").read_bytes().decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n")
        return [(name, row.tobytes()) for name, row in zip(names.split("\n"), matrix, strict=True)]
    table = pq.read_table(path)
    kind = table["embedding"].type.value_type.to_pandas_dtype()
    rows = zip(table["item_id"].to_pylist(), table["embedding"].to_pylist(), strict=True)
    return [(name_of(name), np.array(vector, kind).tobytes()) for name, vector in rows if vector is not None]


def _read_split(path: Path) -> dict[int, int]:
    """The number of the split of each user, by the hash of the user's id, as the stage `prepare` reads it."""
    parts = read_user_parts(find_sources("data.split.path", SourceConfig(path=path.name), str(path.parent)))
    return dict(zip(parts.hashes.tolist(), parts.parts.tolist(), strict=True))


def _split_there(path: Path) -> dict[int, int]:
    users = {name_of(user): part for user, part in independent_rows(path, ("user_id", "split")) or []}
    users.pop(None, None)
    hashes = hash_ids(pa.array(list(users), pa.string())).tolist()
    return {key: NAMES.index(part) for key, part in zip(hashes, users.values(), strict=True)}


TARGETS = [
    Target("vectors", _cases("lists.parquet", "fixed.parquet", "matrix.npy"), _check(_read_vectors, _vectors_there)),
    Target("splits", _cases("split.csv", "split.parquet"), _check(_read_split, _split_there)),
]
