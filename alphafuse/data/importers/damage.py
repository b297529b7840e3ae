"""Translates the errors of readers into one that names the file and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from alphafuse.errors import DataError


@contextmanager
def readable(uri: str, kind: str) -> Iterator[None]:
    """Context for code that reads `uri` as a file of some `kind`: errors become a `DataError`.

    Raises:
        DataError: the file cannot be read, or is not of that kind.
    """
    try:
        yield
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise DataError(
            f"{uri} cannot be read as {kind}: {error}. "
            f"Is the file complete, and its format (`format` beside `path`) right?"
        ) from error
