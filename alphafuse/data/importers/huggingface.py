"""Reads Hugging Face data sets: `hf://NAME` from the hub (or its cache), or a folder written by `save_to_disk`.

The rows stay in memory-mapped Arrow files; only the columns that are asked for are touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import datasets
import pyarrow as pa

from alphafuse.errors import DataError
from alphafuse.storage.folder import open_filesystem

PREFIX = "hf://"
_BATCH_ROWS = 32_768
_MARKERS = ("state.json", "dataset_dict.json")


def is_saved(uri: str) -> bool:
    """True if a folder was written by `save_to_disk`."""
    filesystem, path = open_filesystem(uri)
    return any(info.is_file for info in filesystem.get_file_info([f"{path}/{name}" for name in _MARKERS]))


def data_files(uri: str, split: str | None) -> list[str]:
    """Paths of the local Arrow files of the data set, which is downloaded first if necessary."""
    return [file["filename"] for file in _load(uri, split).cache_files]


def column_names(uri: str, split: str | None) -> list[str]:
    """Names of the columns.

    Raises:
        DataError: there is no such data set, or it has several splits and none is chosen.
    """
    return _load(uri, split).column_names


def read(uri: str, columns: Sequence[str], split: str | None) -> Iterator[pa.Table]:
    """Yield the rows in order.

    Raises:
        DataError: there is no such data set, or it has several splits and none is chosen.
    """
    yield from _load(uri, split).select_columns(list(columns)).with_format("arrow").iter(_BATCH_ROWS)


def _load(uri: str, split: str | None) -> datasets.Dataset:
    try:
        if uri.startswith(PREFIX):
            found = datasets.load_dataset(uri.removeprefix(PREFIX))
        else:
            found = datasets.load_from_disk(uri)
    except (OSError, RuntimeError, ValueError, datasets.exceptions.DatasetsError) as error:
        # The error of a file is wrapped into one without details.
        reason = error.__cause__ or error
        raise DataError(
            f"{uri} cannot be loaded as a Hugging Face data set: {reason}. Where it is a loading script, or its files "
            "have different columns, name its Parquet or CSV files themselves as `path`"
        ) from error
    if isinstance(found, datasets.Dataset):
        if split is not None:
            raise DataError(f"{uri} is one table without splits; remove `split: {split}`")
        return found
    names = list(found)
    if split is None and len(names) == 1:
        return found[names[0]]
    if split not in names:
        wanted = "has several splits" if split is None else f"has no split {split!r}"
        raise DataError(f"{uri} {wanted}; set `split` beside `path` to one of: {', '.join(names)}")
    return found[split]
