"""Adapts file systems of fsspec to pyarrow, such that failures of the storage raise errors.

pyarrow's own adapter calls `exists`, `isfile`, `isdir` and `find` of fsspec. These take any failure for "no", so that
a folder seems empty, or a file missing, while the storage does not answer.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.fs as pafs


class FsspecAdapter(pafs.FSSpecHandler):
    """Uses `info` and `ls`, which raise on failures, before it acts."""

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        if selector.recursive:
            return super().get_file_info_selector(selector)
        self.fs.invalidate_cache(selector.base_dir)  # other processes write as well
        try:
            entries = self.fs.ls(selector.base_dir, detail=True)
        except FileNotFoundError:
            if selector.allow_not_found:
                return []
            raise
        folder = selector.base_dir.rstrip("/")
        return [self._create_file_info(e["name"], e) for e in entries if e["name"].rstrip("/") != folder]

    def delete_file(self, path: str) -> None:
        self.fs.info(path)
        self.fs.rm(path)

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(self.fs.open(path, mode="rb"), mode="r")

    def open_input_file(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(self.fs.open(path, mode="rb"), mode="r")

    def create_file(self, path: str, name: str, content: bytes) -> None:
        """Write a file that must not exist.

        Raises:
            FileExistsError: it does.
        """
        self.fs.makedirs(path, exist_ok=True)
        self.fs.pipe_file(f"{path}/{name}", content, mode="create")
