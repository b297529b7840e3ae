"""Every different text has one place, and every item finds it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphafuse.language.plan import hash_array, make_plan


def hashes_of(texts: list[int]) -> np.ndarray:
    """Hashes [texts, 2] of two words each; either word alone is ambiguous."""
    values = np.array(texts, np.uint64).reshape(-1)
    return np.stack([values % np.uint64(3), values // np.uint64(3)], axis=1)


@settings(deadline=None, max_examples=60)
@given(
    known=st.lists(st.lists(st.integers(0, 30), max_size=6), max_size=3),
    shards=st.lists(st.lists(st.integers(0, 30), max_size=12), min_size=1, max_size=4),
    batch_size=st.integers(1, 5),
)
def test_every_item_finds_its_text(known: list[list[int]], shards: list[list[int]], batch_size: int) -> None:
    named = [(f"known-{number}", hashes_of(texts)) for number, texts in enumerate(known)]
    plan = make_plan(named, [hashes_of(texts) for texts in shards], batch_size)
    content = {name: texts for (name, _), texts in zip(named, known, strict=True)}
    for batch in plan.batches:
        assert 1 <= len(batch.rows) <= batch_size
        assert batch.file not in content
        content[batch.file] = [shards[batch.shard][row] for row in batch.rows]
    catalog = [text for texts in shards for text in texts]
    found = [content[plan.files[file]][row] for file, row in zip(plan.file, plan.row, strict=True)]
    assert found == catalog
    to_embed = [text for name, texts in content.items() if not name.startswith("known") for text in texts]
    assert sorted(to_embed) == sorted(set(catalog) - {text for texts in known for text in texts})
    assert (plan.distinct, plan.to_embed) == (len(set(catalog)), len(to_embed))


def test_batches_are_named_by_their_texts() -> None:
    first = make_plan([], [hashes_of([1, 2, 3, 4])], 2)
    again = make_plan([], [hashes_of([9]), hashes_of([1, 2]), hashes_of([4, 3])], 2)
    assert first.batches[0].file == again.batches[1].file
    assert first.batches[1].file != again.batches[2].file


@pytest.mark.parametrize("start", [0, 3])
def test_hashes_of_a_column_of_chunks_and_slices(start: int) -> None:
    values = [bytes([number] * 16) for number in range(10)]
    column = pa.chunked_array([pa.array(values[:4], pa.binary(16)), pa.array(values[4:], pa.binary(16))]).slice(start)
    assert [row.tobytes() for row in hash_array(column)] == values[start:]
