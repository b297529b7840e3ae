"""Records of many files in few, for a process that writes thousands of small ones.

A record beside each file would have to be asked for, one by one, when the files are read back. An index is written anew
with each of its records, so that a file counts as written as soon as its own record is there.
"""

from __future__ import annotations

import threading
import uuid

from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.manifest import INDEX_SUFFIX, FileRecord, index_to_json

FULL_BYTES = 1 << 20
"""Size from which on an index gets no more records. Bounds what is written again with each file."""


class RecordIndex:
    """The indexes that one process writes in a folder. Threads may share it.

    Args:
        folder: where the files and their indexes lie.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._writing = threading.Lock()
        self._bytes = 0
        self._begin()

    def add(self, record: FileRecord) -> None:
        """Write the record of a file that is written."""
        with self._writing:
            if self._bytes >= FULL_BYTES:
                self._begin()
            self._records.append(record)
            content = index_to_json(self._records)
            self._folder.write_bytes(self._name, content)
            self._bytes = len(content)

    def _begin(self) -> None:
        self._name = f"{uuid.uuid4().hex}{INDEX_SUFFIX}"
        self._records: list[FileRecord] = []
        self._bytes = 0
