"""Finds the files of a configured path, and reads them in whatever format they have.

A path is a file, a folder, a glob or a data set. It gives a list of sources in a fixed order, each of which is read as
a stream of tables. This module knows nothing of what the columns mean.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from alphafuse.config import SourceConfig
from alphafuse.data.importers import csv, huggingface, jsonl, parquet, recbole
from alphafuse.data.importers.columns import require_columns
from alphafuse.data.importers.listing import cut_glob, matching_files, natural_order
from alphafuse.errors import DataError
from alphafuse.storage.filesystem.folder import open_filesystem, resolve

_READERS = {"parquet": parquet, "csv": csv, "jsonl": jsonl, "recbole": recbole, "huggingface": huggingface}
_HINTS = {"csv": csv.missing_column_hint, "jsonl": jsonl.missing_column_hint}
_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".item": "recbole",
    ".inter": "recbole",
}
_COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")

PEEKED_ROWS = 1000
"""Most rows that a look at a source shows."""
_ACCOMPANIES = re.compile(
    r"(^|/)(README|LICEN[CS]E|NOTICE|CHANGELOG|Makefile)[^/]*$|\.(md|rst|html?|pdf|png|jpe?g|crc|md5|sha\d+|py|ya?ml|json)$"
)
"""Names of files that are no data themselves."""

HASHED_BYTES = 256 * 2**20
"""Files of a path are identified by their content if all of them together have at most this size; larger ones by size
and time of modification."""


@dataclass(frozen=True)
class Source:
    """One file or data set.

    Attributes:
        uri: address of the file or data set.
        name: name of the file in its folder, whatever the place of the folder; empty for a data set.
        format: one of the formats that can be read.
        options: the settings that it is read with.
        files: paths of the local files of a data set; none for a file.
        bytes: size of the file or data set.
        is_hashed: whether all files of the configured path together have at most `HASHED_BYTES`.
    """

    uri: str
    name: str
    format: str
    options: SourceConfig
    files: tuple[str, ...]
    bytes: int
    is_hashed: bool

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Values that change with the content: name, format, size, and either SHA-256 (so that copies on other machines
        are equal) or, unless `is_hashed`, time of modification. Hashing reads the whole file, when this is first asked
        for (see `identified`)."""
        if self.format == "huggingface":
            local = pafs.LocalFileSystem()
            return {"format": self.format, "files": [_content(local, path, self.is_hashed) for path in self.files]}
        return {"name": self.name, "format": self.format, **_content(*open_filesystem(self.uri), self.is_hashed)}

    def read(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield tables of these columns, all rows in order.

        Raises:
            DataError: a column is missing, or the content is damaged.
        """
        self.require(columns)
        yield from _READERS[self.format].read(self.uri, list(dict.fromkeys(columns)), self.options)

    def peek(self, columns: Sequence[str]) -> pa.Table:
        """Return the first rows with these columns, at most `PEEKED_ROWS`; no more of the file is read than is needed
        for them.

        Raises:
            DataError: a column is missing, or these rows are damaged.
        """
        self.require(columns)
        reader = _READERS[self.format]
        first_rows = getattr(reader, "head", reader.read)  # a reader that is lazy needs no function of its own
        for table in first_rows(self.uri, list(dict.fromkeys(columns)), self.options):
            if table.num_rows:
                return table.slice(0, PEEKED_ROWS)
        return pa.table({column: pa.array([], pa.string()) for column in columns})

    def require(self, columns: Sequence[str]) -> None:
        """Check that the columns are there.

        Raises:
            DataError: a column is missing, or the content is damaged.
        """
        names = self.column_names()
        hint = _HINTS[self.format](self.uri, names, self.options) if self.format in _HINTS else ""
        require_columns(self.uri, names, columns, hint)

    def column_names(self) -> list[str]:
        """Names of the columns that can be read.

        Raises:
            DataError: the content is damaged.
        """
        return _READERS[self.format].column_names(self.uri, self.options)


@dataclass(frozen=True)
class Found:
    """The files at a configured path.

    Attributes:
        sources: in the order of their names, numbers in them by their value.
        unread: names of files in a folder, or folders that its glob matches, that are no source: their names end in no
            known format. Hidden files, and those that accompany data (`_SUCCESS`, checksums, texts about it), are no
            loss.
    """

    sources: list[Source]
    unread: list[str]


def find_sources(key: str, config: SourceConfig, folder: str) -> list[Source]:
    """Find the sources of a configured path (see `find_all_files`)."""
    return find_all_files(key, config, folder).sources


def find_all_files(key: str, config: SourceConfig, folder: str) -> Found:
    """Find the sources of a configured path, and what lies beside them and is not read.

    Args:
        key: key of the section or of the path in the configuration, for messages ("data.catalog.path").
        folder: folder or URI that relative paths start from.

    Raises:
        DataError: there is no such file, a file is empty or its format unknown, a setting does not go with the format,
            or the folder is a table of Delta Lake, Hudi or Iceberg.
    """
    found = _find(key, config, folder)
    source = found.sources[0]
    known = _READERS[source.format].OPTIONS
    for option in ("split", "name", "separator", "encoding", "columns"):
        value = getattr(config, option)
        if value is not None and option not in known:
            raise DataError(
                f"{key}: `{option}: {value}` has no meaning for {source.uri}, whose format is {source.format}; "
                "remove it, or set `format` beside `path`"
            )
    return found


def identified(sources: list[Source]) -> list[Source]:
    """The same sources, each of which knows its `identity` from now on. For tasks that return sources: the process that
    gets them may not reach the files."""
    for source in sources:
        source.identity  # noqa: B018
    return sources


def _find(key: str, config: SourceConfig, folder: str) -> Found:
    uri = _uri(config, folder)
    if uri.startswith(huggingface.PREFIX) or config.format == "huggingface":
        return Found([_data_set(uri, config)], [])
    filesystem, inner = open_filesystem(uri)
    info = filesystem.get_file_info(inner)
    if info.is_file:
        name = uri.rsplit("/", 1)[-1]
        return Found(_files(key, uri.removesuffix(name), {name: info}, _format(key, uri, config.format), config), [])
    if info.type == pafs.FileType.Directory:
        if config.format == "auto" and huggingface.is_saved(uri):
            return Found([_data_set(uri, config)], [])
        return _inside(key, uri, "**", config)
    base, pattern = cut_glob(uri)
    if not pattern:
        raise DataError(f"{key}: there is no file or folder {uri}")
    return _inside(key, base, pattern, config)


def _uri(config: SourceConfig, folder: str) -> str:
    """Address of the configured path; a data set that lies in a local folder is found from any current folder."""
    if not config.path.startswith(huggingface.PREFIX):
        return resolve(config.path, folder)
    local = resolve(config.path.removeprefix(huggingface.PREFIX), folder)
    is_local = "://" not in local and os.path.isdir(local)
    return f"{huggingface.PREFIX}{local}" if is_local else config.path


def _inside(key: str, base: str, pattern: str, config: SourceConfig) -> Found:
    """Files in the folder `base` whose relative path matches a glob; hidden files are left out."""
    matching = matching_files(base, pattern, key)
    found = {name: info for name, info in matching.items() if info.is_file}
    if not found and matching:
        raise DataError(
            f"{key}: {base}/{pattern} matches folders alone, such as {min(matching)}; for the files in them, write "
            f"{base}/{pattern.rstrip('/')}/**"
        )
    if pattern == "**" and config.format == "auto":
        found = _data_files(found)
    if not found:
        raise DataError(f"{key}: no files match {base}/{pattern}{_found_instead(matching)}")
    formats = {_format(key, name, config.format) for name in found}
    if len(formats) > 1:
        raise DataError(
            f"{key}: {base}/{pattern} has files of several formats ({', '.join(sorted(formats))}); "
            f"name the files by a glob such as *.parquet"
        )
    sources = _files(key, f"{base}/", found, next(iter(formats)), config)
    return Found(sources, _unread(matching, found, pattern) if config.format == "auto" else [])


def _unread(matching: Mapping[str, pafs.FileInfo], read: Mapping[str, pafs.FileInfo], pattern: str) -> list[str]:
    if pattern != "**":
        return sorted(name for name, info in matching.items() if not info.is_file)
    beside = (name for name, info in matching.items() if info.is_file and name not in read)
    return sorted(name for name in beside if not _ACCOMPANIES.search(name))


def _data_files(found: Mapping[str, pafs.FileInfo]) -> dict[str, pafs.FileInfo]:
    """The files whose names tell a format; .json beside files of another format describes them."""
    formats = {name: format_by_name(name) for name, info in found.items() if info.is_file}
    others = {format for name, format in formats.items() if format and not _stem(name).endswith(".json")}
    return {
        name: found[name]
        for name, format in formats.items()
        if format and (not others or not _stem(name).endswith(".json") or others == {"jsonl"})
    }


def _found_instead(matching: Mapping[str, pafs.FileInfo]) -> str:
    names = sorted(name for name, info in matching.items() if info.is_file)
    if not names:
        return ""
    return (
        f" whose names end in {', '.join(_SUFFIXES)}, perhaps packed ({', '.join(_COMPRESSIONS)}); there are {names[0]}"
        f"{' and others' if len(names) > 1 else ''}. Set `format` beside `path`, or rename them"
    )


def _files(
    key: str,
    prefix: str,
    found: Mapping[str, pafs.FileInfo],
    format: str,
    config: SourceConfig,
) -> list[Source]:
    """Sources of files, in the order of their names; `prefix` and a name are the address of a file."""
    empty = [name for name in sorted(found, key=natural_order) if found[name].size == 0]
    if empty:
        raise DataError(
            f"{key}: {prefix}{empty[0]} has 0 "
            f"bytes{f', and {len(empty) - 1} others' if len(empty) > 1 else ''}: delete it if it holds no rows, "
            f"or copy it again if it should"
        )
    hashed = _is_hashed(found.values())
    return [
        Source(f"{prefix}{name}", name, format, config, (), found[name].size, hashed)
        for name in sorted(found, key=natural_order)
    ]


def _data_set(uri: str, config: SourceConfig) -> Source:
    files = huggingface.data_files(uri, config)
    infos = pafs.LocalFileSystem().get_file_info(files)
    total = sum(info.size for info in infos)
    return Source(uri, "", "huggingface", config, tuple(files), total, _is_hashed(infos))


def _is_hashed(infos: Iterable[pafs.FileInfo]) -> bool:
    return sum(info.size for info in infos) <= HASHED_BYTES


def _content(filesystem: pafs.FileSystem, path: str, hashed: bool) -> dict[str, Any]:
    info = filesystem.get_file_info(path)
    if not hashed:
        return {"bytes": info.size, "modified": info.mtime.isoformat() if info.mtime else None}
    # compression=None: by default pyarrow unpacks a stream whose name has the suffix of a compression.
    with filesystem.open_input_stream(path, compression=None) as stream:
        return {"bytes": info.size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _format(key: str, name: str, format: str) -> str:
    found = format_by_name(name) if format == "auto" else format
    if found is None:
        raise DataError(
            f"{key}: cannot tell the format of {name} by its name ({', '.join(_SUFFIXES)}). Rename it, or for "
            f"catalog and "
            'interactions set `format` beside `path`; for text files: `format: csv`, with `separator` (such as "::"), '
            "`encoding` (such as latin-1) and, where there is no header line, `columns`"
        )
    return found


def _stem(name: str) -> str:
    """The name without the suffix of a compression."""
    return next((name.removesuffix(packed) for packed in _COMPRESSIONS if name.endswith(packed)), name)


def format_by_name(name: str) -> str | None:
    """The format of a file by the end of its name; None where that tells none."""
    return next((format for suffix, format in _SUFFIXES.items() if _stem(name).endswith(suffix)), None)
