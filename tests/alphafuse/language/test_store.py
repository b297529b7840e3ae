"""Vectors of texts in a bucket: the requests that writing and finding them costs."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pyarrow as pa
from support.servers.object_store import ObjectStore

from alphafuse.language.plan import hash_array
from alphafuse.language.store import EmbeddingStore
from alphafuse.language.text_encoders.encoder import Encoded
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem.folder import Folder

BATCHES, TEXTS, DIM = 100, 3, 2


def _store() -> EmbeddingStore:
    return EmbeddingStore(Artifact(Folder("s3://bucket/run/embeddings"), "embeddings", "embed"), {"encoder": "a"})


def _hashes(batch: int) -> pa.Array:
    return pa.array([hashlib.sha256(b"%d %d" % (batch, text)).digest()[:16] for text in range(TEXTS)], pa.binary(16))


def _write(store: EmbeddingStore) -> None:
    index = store.index()
    for batch in range(BATCHES):
        vectors = np.full((TEXTS, DIM), batch, np.float16)
        store.write_vectors(f"{batch:04d}.parquet", _hashes(batch), Encoded(vectors), index)


def test_a_batch_costs_two_requests_and_a_hundred_are_found_by_four(bucket: ObjectStore) -> None:
    _write(_store())
    assert bucket.counts() == {"PutObject": 2 * BATCHES}
    bucket.requests.clear()
    records, hashes = _store().known_vectors()
    assert sorted(records) == [f"{batch:04d}.parquet" for batch in range(BATCHES)]
    for name, found in hashes:
        wanted = hash_array(pa.chunked_array([_hashes(int(name.removesuffix(".parquet")))]))
        np.testing.assert_array_equal(found, wanted)
    assert bucket.counts() <= Counter(GetObject=1, HeadObject=1, ListObjects=2)  # the records fill no MiB


def test_vectors_are_gathered_by_records_that_are_at_hand(bucket: ObjectStore) -> None:
    _write(_store())
    records, _ = _store().known_vectors()
    bucket.requests.clear()
    files = [(name, records[name]) for name in sorted(records)[3:5]]
    encoded = _store().gather(files, np.array([1, 0, 1]), np.array([2, 0, 1]), DIM, "float16")
    np.testing.assert_array_equal(encoded.vectors, np.array([[4, 4], [3, 3], [4, 4]], np.float16))
    assert bucket.counts(".json") == {}
    assert set(bucket.counts()) <= {"HeadObject", "GetObject"}
    assert bucket.counts().total() <= 2 * 4


def test_records_of_versions_before_lie_beside_their_files(bucket: ObjectStore) -> None:
    """Their hashes are read from the files."""
    store = _store()
    table = pa.table({"text_hash": _hashes(0), "embedding": pa.nulls(TEXTS, pa.list_(pa.float16()))})
    store.vectors.write_table("0000.parquet", table, store.encoder, details={"dim": DIM})
    records, ((name, hashes),) = _store().known_vectors()
    assert [*records] == [name] == ["0000.parquet"]
    np.testing.assert_array_equal(hashes, hash_array(pa.chunked_array([_hashes(0)])))
