"""Makes the text of an item from a template over the columns of the catalog."""

from __future__ import annotations

import string
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from alphafuse.data.importers.columns import as_text
from alphafuse.errors import ConfigError


class TextTemplate:
    """A template such as `"{title}. {genres}"`; `{{` and `}}` stand for braces.

    Raises:
        ConfigError: it is malformed, or names no column.
    """

    def __init__(self, template: str) -> None:
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise ConfigError(f"data.catalog.text: {template!r} is not a template: {error}") from error
        self._parts: list[tuple[str, str | None]] = []
        for literal, field, spec, conversion in parts:
            if field == "" or spec or conversion:
                raise ConfigError(f"data.catalog.text: {template!r} may hold names of columns in braces, nothing else")
            self._parts.append((literal, field))
        self.columns: Sequence[str] = list(dict.fromkeys(field for _, field in self._parts if field is not None))
        if not self.columns:
            raise ConfigError(f"data.catalog.text: {template!r} names no column; write one in braces: {{title}}")

    def render(self, table: pa.Table, where: str) -> pa.Array:
        """Texts of the rows, string [rows]; runs of white space become one space, and missing values are empty.

        The text of an item is empty if all columns of the template are empty.

        Raises:
            DataError: a column cannot be used as text.
        """
        values = {name: as_text(table[name], where, name) for name in self.columns}
        pieces: list[pa.Array | pa.Scalar] = []
        for literal, field in self._parts:
            pieces.append(pa.scalar(literal, pa.string()))
            if field is not None:
                pieces.append(values[field])
        texts = tidy(pc.binary_join_element_wise(*pieces, pa.scalar("", pa.string())))
        filled = tidy(pc.binary_join_element_wise(*values.values(), pa.scalar("", pa.string())))
        return pc.if_else(pc.equal(filled, ""), pa.scalar("", pa.string()), texts)


def tidy(texts: pa.Array) -> pa.Array:
    """Texts without leading and trailing white space; each run of white space inside becomes one space."""
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, r"\s+", " "))
