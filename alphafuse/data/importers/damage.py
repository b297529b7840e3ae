"""Turns the errors of readers into one that names the file and says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from alphafuse.errors import DataError


@contextmanager
def readable(uri: str, kind: str) -> Iterator[None]:
    """A block that reads `uri` as a file of a kind.

    Raises:
        DataError: the file cannot be read, or is not of that kind.
    """
    try:
        yield
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{uri} cannot be read as {kind}: {error}. "
            f"Is the file complete, and its format (`format` beside `path`) right?"
        ) from error
