"""Explains ids that look right and are not the same: '1.0' and '1', composed and decomposed accents, blanks, case.

Ids are compared byte by byte. These functions change no id; they find what a message can say. Nothing here knows files.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MOST_LOOKED_AT = 1000
"""Unknown ids of one table that are looked at."""

_FORMS: dict[str, Callable[[pa.Array], pa.Array]] = {
    "without '.0'": lambda ids: pc.replace_substring_regex(ids, r"^(-?[0-9]+)\.0+$", r"\1"),
    "with '.0'": lambda ids: pc.replace_substring_regex(ids, r"^(-?[0-9]+)$", r"\1.0"),
    "with composed accents (Unicode NFC)": lambda ids: pc.utf8_normalize(ids, "NFC"),
    "with decomposed accents (Unicode NFD)": lambda ids: pc.utf8_normalize(ids, "NFD"),
    "without blanks around it": pc.utf8_trim_whitespace,
    "without zeros in front": lambda ids: pc.replace_substring_regex(ids, r"^0+([0-9]+)$", r"\1"),
    "in lower case": pc.utf8_lower,
    "in upper case": pc.utf8_upper,
}


def known_forms(ids: pa.Array, is_known: Callable[[pa.Array], np.ndarray]) -> dict[str, str]:
    """Ways to write unknown ids with which they are known, each with an example.

    Args:
        ids: strings that are not known; the first `MOST_LOOKED_AT` different ones are looked at.
        is_known: gives a mask of ids, bool [ids].
    """
    looked_at = pc.unique(ids).slice(0, MOST_LOOKED_AT)
    found = {}
    for form, change in _FORMS.items():
        changed = change(looked_at)
        known = np.flatnonzero(is_known(changed))
        if len(known):
            found[form] = looked_at[int(known[0])].as_py()
    return found


def count_decomposed(ids: pa.Array) -> int:
    """Number of ids whose accents are decomposed: each looks like another id, the composed one."""
    if pc.all(pc.string_is_ascii(ids)).as_py() in (True, None):
        return 0
    return pc.sum(pc.not_equal(pc.utf8_normalize(ids, "NFC"), ids)).as_py() or 0
