"""Lists the files of a folder that a glob matches, such that each counts once and none by mistake.

Knows nothing of formats, but for table formats, whose folders are no plain files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

import pyarrow.fs as pafs
from fsspec.utils import glob_translate

from alphafuse.data.importers.links import require_each_file_once
from alphafuse.errors import DataError
from alphafuse.storage.filesystem.folder import open_filesystem

_TABLE_FORMATS = {
    "Delta Lake": r"(^|/)_delta_log(/|$)",
    "Hudi": r"(^|/)\.hoodie(/|$)",
    "Iceberg": r"(^|/)metadata/[^/]*\.metadata\.json$",
}
"""Names of files by which the folders of table formats are told."""


def matching_files(base: str, pattern: str, key: str = "") -> dict[str, pafs.FileInfo]:
    """Files and folders inside of `base` whose relative path matches a glob, by that path; hidden ones are left out.

    Raises:
        DataError: the folder is a table of Delta Lake, Hudi or Iceberg, or holds links to what it holds anyway.
    """
    filesystem, root = open_filesystem(base)
    if isinstance(filesystem, pafs.LocalFileSystem) and os.path.isdir(root):
        require_each_file_once(key, root)
    infos = filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True, recursive=True))
    names = [info.path.removeprefix(root).lstrip("/") for info in infos]
    _require_no_table_format(key, base, names)
    matches = re.compile(glob_translate(pattern)).match
    return {
        name: info
        for name, info in zip(names, infos, strict=True)
        if matches(name) and not any(part.startswith((".", "_")) for part in name.split("/"))
    }


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sort key of a file name in which numbers go by their value: shard-2 before shard-10."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in parts]


def cut_glob(uri: str) -> tuple[str, str]:
    """Split a URI at its first part with a wildcard: folder, and pattern (empty: there is no wildcard). A folder whose
    name looks like a pattern, as `data[1]`, is that folder."""
    parts = uri.split("/")
    for number, part in enumerate(parts):
        if re.search(r"[*?\[]", part):
            filesystem, path = open_filesystem("/".join(parts[: number + 1]))
            if filesystem.get_file_info(path).type != pafs.FileType.Directory:
                return "/".join(parts[:number]), "/".join(parts[number:])
    return uri, ""


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
