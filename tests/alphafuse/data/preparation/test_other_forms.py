"""Ids that look right and are not the same are explained."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pytest

from alphafuse.data.preparation.other_forms import count_decomposed, known_forms

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("unknown", "known", "form"),
    [
        ("1.0", "1", "without '.0'"),
        ("1", "1.0", "with '.0'"),
        (DECOMPOSED, COMPOSED, "with composed accents (Unicode NFC)"),
        (COMPOSED, DECOMPOSED, "with decomposed accents (Unicode NFD)"),
        (" a ", "a", "without blanks around it"),
        ("007", "7", "without zeros in front"),
        ("b0A", "b0a", "in lower case"),
        ("b0a", "B0A", "in upper case"),
    ],
)
def test_a_form_that_is_known_is_found_with_an_example(unknown: str, known: str, form: str) -> None:
    def is_known(ids: pa.Array) -> np.ndarray:
        return np.array([item == known for item in ids.to_pylist()])

    assert known_forms(pa.array(["x", unknown]), is_known) == {form: unknown}
    assert known_forms(pa.array(["x"]), is_known) == {}


def test_decomposed_ids_are_counted() -> None:
    assert count_decomposed(pa.array([DECOMPOSED, COMPOSED, "a", DECOMPOSED])) == 2
    assert count_decomposed(pa.array(["a"])) == count_decomposed(pa.array([], pa.string())) == 0
