"""Hashes that order ids and put them into buckets, and hashes of texts.

Both must never change: item indices and embeddings that are kept between runs depend on them.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pyarrow as pa

_HASH_KEY = "alphafuse-id-key"  # of SipHash, 16 bytes


def hash_ids(ids: pa.Array) -> np.ndarray:
    """64-bit hashes of ids, uint64 [ids].

    Args:
        ids: strings without nulls.
    """
    encoded = ids.dictionary_encode()
    hashes = _hash(encoded.dictionary)
    return hashes[encoded.indices.to_numpy()]


def hash_with_seed(ids: pa.Array, seed: int) -> np.ndarray:
    """Hashes that order ids differently for each seed, uint64 [ids]: the hash is taken of "SEED:ID"."""
    return _hash(pa.array([f"{seed}:{value}" for value in ids.to_pylist()], pa.string()))


def hash_texts(texts: pa.Array) -> pa.Array:
    """BLAKE2b of the UTF-8 texts, 16 bytes each: fixed-size binary(16) [texts]."""
    digests = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts.to_pylist()]
    return pa.array(digests, pa.binary(16))


def bucket_of(hashes: np.ndarray, num_buckets: int) -> np.ndarray:
    """Bucket of each hash, int64: all hashes are divided into `num_buckets` (< 2^32) equal, ascending ranges."""
    return (((hashes >> np.uint64(32)) * np.uint64(num_buckets)) >> np.uint64(32)).astype(np.int64)


def _hash(ids: pa.Array) -> np.ndarray:
    values = ids.to_numpy(zero_copy_only=False).astype(object)
    return pd.util.hash_array(values, encoding="utf8", hash_key=_HASH_KEY, categorize=False)
