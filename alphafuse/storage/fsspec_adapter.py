"""File systems of fsspec as pyarrow's, with failures told as what they are.

pyarrow's own adapter asks fsspec whether something exists, is a file or a folder, and lists with `find`: all of these
take any failure for "no", so that a folder seems empty, or a file gone, while the storage does not answer.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.fs as pafs


class FsspecAdapter(pafs.FSSpecHandler):
    """Looks before it acts with `info` and `ls`, which raise."""

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        if selector.recursive:
            return super().get_file_info_selector(selector)
        self.fs.invalidate_cache(selector.base_dir)  # other processes write, too
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
