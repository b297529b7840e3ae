"""Tables of pandas, pyarrow and other packages with the interface of Arrow: from their kind to pyarrow's and back.

pandas is not imported for callers who do not use it.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from alphafuse.errors import DataError


def is_table(given: Any) -> bool:
    """Tell whether this is a table that `to_arrow` reads."""
    return hasattr(given, "columns") and hasattr(given, "__arrow_c_stream__")


def to_arrow(given: Any, name: str) -> pa.Table:
    """The table as one of pyarrow; an index of pandas is left out.

    Args:
        name: what messages call the table.

    Raises:
        DataError: it is no table, or a column holds values of several types.
    """
    if not is_table(given):
        raise DataError(f"{name} must be a table of pandas or pyarrow, found {type(given).__name__}")
    try:
        if _is_pandas(given):
            return pa.Table.from_pandas(given, preserve_index=False)
        return pa.table(given)
    except pa.ArrowException as error:
        raise DataError(f"{name} cannot be read: {error}") from error


def as_given(table: pa.Table, given: Any) -> Any:
    """Return a table of pandas where `given` is one, else the table as it is."""
    return table.to_pandas() if _is_pandas(given) else table


def _is_pandas(given: Any) -> bool:
    return type(given).__module__.partition(".")[0] == "pandas"
