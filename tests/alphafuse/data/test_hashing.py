"""Hashes that item indices and kept embeddings depend on, against their published definitions."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.data.hashing import bucket_of, hash_ids, hash_texts, hash_with_seed

MASK = 2**64 - 1


def siphash(key: bytes, message: bytes) -> int:
    """SipHash-2-4 as in Aumasson & Bernstein 2012, §2."""
    k0, k1 = (int.from_bytes(key[first : first + 8], "little") for first in (0, 8))
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(value: int, bits: int) -> int:
        return (value << bits | value >> 64 - bits) & MASK

    def sip_round() -> None:
        v[0] = v[0] + v[1] & MASK
        v[1] = rotate(v[1], 13) ^ v[0]
        v[0] = rotate(v[0], 32)
        v[2] = v[2] + v[3] & MASK
        v[3] = rotate(v[3], 16) ^ v[2]
        v[0] = v[0] + v[3] & MASK
        v[3] = rotate(v[3], 21) ^ v[0]
        v[2] = v[2] + v[1] & MASK
        v[1] = rotate(v[1], 17) ^ v[2]
        v[2] = rotate(v[2], 32)

    padded = message + b"\0" * (7 - len(message) % 8) + bytes([len(message) % 256])
    for first in range(0, len(padded), 8):
        word = int.from_bytes(padded[first : first + 8], "little")
        v[3] ^= word
        sip_round()
        sip_round()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(4):
        sip_round()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def mixed(value: int) -> int:
    """The finalizer of SplitMix64 (Steele et al. 2014), which pandas puts behind SipHash."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def test_the_published_vector_of_siphash() -> None:
    assert siphash(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5


def test_ids_are_hashed_by_mixed_siphash() -> None:
    ids = ["", "1", "item 7", "Amélie", "x" * 100, "1"]
    expected = [mixed(siphash(b"alphafuse-id-key", value.encode())) for value in ids]
    np.testing.assert_array_equal(hash_ids(pa.array(ids)), np.array(expected, np.uint64))
    seeded = [mixed(siphash(b"alphafuse-id-key", f"22:{value}".encode())) for value in ids]
    np.testing.assert_array_equal(hash_with_seed(pa.array(ids), 22), np.array(seeded, np.uint64))


def test_texts_are_hashed_by_blake2b() -> None:
    texts = ["", "Heat (1995)", "Amélie"]
    expected = [hashlib.blake2b(text.encode("utf8"), digest_size=16).digest() for text in texts]
    assert hash_texts(pa.array(texts)).to_pylist() == expected


@pytest.mark.parametrize("num_buckets", [1, 3, 7, 1000])
def test_buckets_are_equal_ascending_ranges_of_the_hashes(num_buckets: int) -> None:
    hashes = np.sort(np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64))
    buckets = bucket_of(hashes, num_buckets)
    expected = [int(value) * num_buckets >> 64 for value in hashes]
    assert buckets.tolist() == expected
    assert (np.diff(buckets) >= 0).all()
