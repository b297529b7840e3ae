"""Finds the files of a configured path, and reads them in whatever format they have.

A path is a file, a folder, a glob or a data set. It gives a list of sources in a fixed order, each of which is read as
a stream of tables. This module knows nothing of what the columns mean.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.fs as pafs
from fsspec.utils import glob_translate

from alphafuse.data.importers import csv, huggingface, parquet, recbole
from alphafuse.data.importers.columns import require_columns
from alphafuse.errors import DataError
from alphafuse.storage.folder import open_filesystem, resolve

Format = Literal["auto", "parquet", "csv", "recbole", "huggingface"]

_READERS = {"parquet": parquet, "csv": csv, "recbole": recbole, "huggingface": huggingface}
_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".item": "recbole",
    ".inter": "recbole",
}
_COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")

_TABLE_FORMATS = {
    "Delta Lake": r"(^|/)_delta_log(/|$)",
    "Hudi": r"(^|/)\.hoodie(/|$)",
    "Iceberg": r"(^|/)metadata/[^/]*\.metadata\.json$",
}
"""Names of files by which the folders of table formats are told."""

HASHED_BYTES = 256 * 2**20
"""Files of a path are identified by their content if all of them together have at most this size; larger ones by size
and time of modification."""


@dataclass(frozen=True)
class Source:
    """One file or data set.

    Attributes:
        uri: address of the file or data set.
        format: one of the formats that can be read.
        split: name of the split, for a Hugging Face data set with several.
        identity: values that change with the content: name, format, size, and either SHA-256 (up to `HASHED_BYTES`,
            so that copies on other machines are equal) or time of modification.
        bytes: size of the file or data set.
    """

    uri: str
    format: str
    split: str | None
    identity: dict[str, Any]
    bytes: int

    def read(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield tables of these columns, all rows in order.

        Raises:
            DataError: a column is missing, or the content is damaged.
        """
        self.require(columns)
        yield from _READERS[self.format].read(self.uri, list(dict.fromkeys(columns)), self.split)

    def require(self, columns: Sequence[str]) -> None:
        """Check that the columns are there.

        Raises:
            DataError: a column is missing, or the content is damaged.
        """
        require_columns(self.uri, _READERS[self.format].column_names(self.uri, self.split), columns)


def find_sources(key: str, path: str, folder: str, format: Format = "auto", split: str | None = None) -> list[Source]:
    """Find the sources of a configured path, in the order of their names, numbers in them by their value.

    Args:
        key: key of the path in the configuration, for messages ("data.catalog.path").
        path: file, folder, glob, `package://…` or `hf://…`.
        folder: folder or URI that relative paths start from.

    Raises:
        DataError: there is no such file, its format is unknown, or the folder is a table of Delta Lake, Hudi or
            Iceberg.
    """
    if format == "huggingface" or path.startswith(huggingface.PREFIX):
        uri = path if path.startswith(huggingface.PREFIX) else resolve(path, folder)
        return [_data_set(uri, split)]
    uri = resolve(path, folder)
    filesystem, inner = open_filesystem(uri)
    info = filesystem.get_file_info(inner)
    if info.is_file:
        return [_file(uri, info, filesystem, _format(key, uri, format), uri.rsplit("/", 1)[-1], _is_hashed([info]))]
    if info.type == pafs.FileType.Directory:
        if format == "auto" and huggingface.is_saved(uri):
            return [_data_set(uri, split)]
        return _inside(key, uri, "**", format)
    base, wildcard, pattern = _cut_glob(uri)
    if not wildcard:
        raise DataError(f"{key}: there is no file or folder {uri}")
    return _inside(key, base, pattern, format)


def _inside(key: str, base: str, pattern: str, format: Format) -> list[Source]:
    """Files in the folder `base` whose relative path matches a glob; hidden files are left out."""
    filesystem, root = open_filesystem(base)
    matches = re.compile(glob_translate(pattern)).match
    found: dict[str, pafs.FileInfo] = {}
    infos = filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True, recursive=True))
    _require_no_table_format(key, base, (info.path.removeprefix(root).lstrip("/") for info in infos))
    for info in infos:
        name = info.path.removeprefix(root).lstrip("/")
        hidden = any(part.startswith((".", "_")) for part in name.split("/"))
        if info.is_file and not hidden and matches(name):
            found[name] = info
    if pattern == "**" and format == "auto":
        found = {name: info for name, info in found.items() if _suffix_format(name)}
    if not found:
        raise DataError(f"{key}: no files match {base}/{pattern}")
    formats = {_format(key, name, format) for name in found}
    if len(formats) > 1:
        raise DataError(
            f"{key}: {base}/{pattern} has files of several formats ({', '.join(sorted(formats))}); "
            f"name the files by a glob such as *.parquet"
        )
    common, hashed = next(iter(formats)), _is_hashed(found.values())
    names = sorted(found, key=_natural)
    return [_file(f"{base}/{name}", found[name], filesystem, common, name, hashed) for name in names]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key of a file name in which numbers go by their value: shard-2 before shard-10."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in parts]


def _require_no_table_format(key: str, base: str, names: Iterable[str]) -> None:
    """Check that a folder is plain files, and no table whose log says which of its files count.

    Raises:
        DataError: it is a Delta Lake, Hudi or Iceberg table.
    """
    for name in names:
        for kind, pattern in _TABLE_FORMATS.items():
            if re.search(pattern, name):
                raise DataError(
                    f"{key}: {base} is a table of {kind} ({name}), whose log says which files count: files that were "
                    "removed from it would be read. Export the table to a folder of plain Parquet files, and name that"
                )


def _file(uri: str, info: pafs.FileInfo, filesystem: pafs.FileSystem, format: str, name: str, hashed: bool) -> Source:
    return Source(uri, format, None, {"name": name, "format": format, **_content(filesystem, info, hashed)}, info.size)


def _data_set(uri: str, split: str | None) -> Source:
    local = pafs.LocalFileSystem()
    infos = local.get_file_info(huggingface.data_files(uri, split))
    files = [_content(local, info, _is_hashed(infos)) for info in infos]
    return Source(
        uri, "huggingface", split, {"format": "huggingface", "files": files}, sum(info.size for info in infos)
    )


def _is_hashed(infos: Iterable[pafs.FileInfo]) -> bool:
    return sum(info.size for info in infos) <= HASHED_BYTES


def _content(filesystem: pafs.FileSystem, info: pafs.FileInfo, hashed: bool) -> dict[str, Any]:
    if not hashed:
        return {"bytes": info.size, "modified": info.mtime.isoformat() if info.mtime else None}
    # compression=None: by default pyarrow unpacks a stream whose name has the suffix of a compression.
    with filesystem.open_input_stream(info.path, compression=None) as stream:
        return {"bytes": info.size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _format(key: str, name: str, format: Format) -> str:
    found = _suffix_format(name) if format == "auto" else format
    if found is None:
        raise DataError(
            f"{key}: cannot tell the format of {name} by its name ({', '.join(_SUFFIXES)}); rename it, or for "
            "catalog and interactions set `format` beside `path`"
        )
    return found


def _suffix_format(name: str) -> str | None:
    for compression in _COMPRESSIONS:
        name = name.removesuffix(compression)
    return next((format for suffix, format in _SUFFIXES.items() if name.endswith(suffix)), None)


def _cut_glob(uri: str) -> tuple[str, bool, str]:
    """Split a URI at its first part with a wildcard: folder, True if there is a wildcard, and pattern."""
    parts = uri.split("/")
    first = next((number for number, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts))
    return "/".join(parts[:first]), first < len(parts), "/".join(parts[first:])
