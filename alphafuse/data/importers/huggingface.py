"""Reads Hugging Face data sets: `hf://NAME` from the hub (or its cache), or a folder written by `save_to_disk`.

The rows stay in memory-mapped Arrow files; only the columns that are asked for are touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from alphafuse.config import SourceConfig
from alphafuse.errors import DataError
from alphafuse.storage.filesystem.folder import open_filesystem

if TYPE_CHECKING:
    import datasets

T = TypeVar("T")

OPTIONS = frozenset({"split", "name"})
"""Settings beside `path` that this format knows."""
PREFIX = "hf://"
_BATCH_ROWS = 32_768
_MARKERS = ("state.json", "dataset_dict.json")


def is_saved(uri: str) -> bool:
    """True if a folder was written by `save_to_disk`."""
    filesystem, path = open_filesystem(uri)
    return any(info.is_file for info in filesystem.get_file_info([f"{path}/{name}" for name in _MARKERS]))


def data_files(uri: str, options: SourceConfig) -> list[str]:
    """Paths of the local Arrow files of the data set, which is downloaded first if necessary."""
    return [file["filename"] for file in _load(uri, options).cache_files]


def column_names(uri: str, options: SourceConfig) -> list[str]:
    """Names of the columns.

    Raises:
        DataError: there is no such data set, or it has several splits or configurations and none is chosen.
    """
    return _load(uri, options).column_names


def read(uri: str, columns: Sequence[str], options: SourceConfig) -> Iterator[pa.Table]:
    """Yield the rows in order.

    Raises:
        DataError: there is no such data set, or it is damaged, or it has several splits or configurations and none is
            chosen.
    """
    data, rows = _load(uri, options), 0
    batches = data.select_columns(list(columns)).with_format("arrow").iter(_BATCH_ROWS)
    while (batch := _translated(uri, lambda: next(batches, None))) is not None:
        rows += batch.num_rows
        yield batch
    if rows != len(data):
        raise DataError(f"{uri}: the data set tells of {len(data):,} rows, but {rows:,} are there")


def _load(uri: str, options: SourceConfig) -> datasets.Dataset:
    import datasets  # with pandas it takes most of a second, which other formats need not wait for

    datasets.disable_progress_bars()  # progress is shown by events, and errors are raised
    if uri.startswith(PREFIX):
        found = _translated(uri, lambda: datasets.load_dataset(uri.removeprefix(PREFIX), options.name))
    elif options.name is not None:
        raise DataError(f"{uri} was written by `save_to_disk` and has no configurations; remove `name: {options.name}`")
    else:
        found = _translated(uri, lambda: datasets.load_from_disk(uri))
    split = options.split
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


def _translated(uri: str, load: Callable[[], T]) -> T:
    """Call `load`; whatever `datasets` raises becomes an error that says what to do.

    Its errors have no class in common: they are its own and those of pyarrow, of the hub, of archives and of codecs.

    Raises:
        DataError: `load` raised anything.
    """
    try:
        return load()
    except Exception as error:
        # The error of a file is wrapped into one without details.
        reason = f"{error.__cause__ or error}" or type(error).__name__
        raise DataError(
            f"{uri} cannot be loaded as a Hugging Face data set: {reason.strip()}. {_advice(reason)}"
        ) from error


def _advice(reason: str) -> str:
    if "onfig name is missing" in reason or "BuilderConfig" in reason:
        return "Set `name` beside `path` to one of these configurations"
    if "scripts are no longer supported" in reason:
        return (
            "Data sets that are loaded by a script of their own are not read: name the Parquet, JSON lines or "
            "CSV files of the data set as `path` (hub pages have them under 'Files', often in the branch "
            "refs/convert/parquet)"
        )
    return (
        "Is its name right, and can the hub, or the cache of its files, be reached? Where its files have "
        "different columns, name the Parquet, JSON lines or CSV files themselves as `path`"
    )
