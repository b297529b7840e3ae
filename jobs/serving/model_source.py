"""Where the model that is to be served lies, and which one it is at the moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from alphafuse.serving.export_files import Export
from alphafuse.storage.manifest import content_fingerprint

SHOWN = 12
"""Number of digits of a fingerprint that name a model without a version."""


@dataclass(frozen=True)
class Location:
    """A model that can be served.

    Attributes:
        version: name of the model in answers.
        export: URI of its export.
        fingerprint: SHA-256 over the files of the export (`content_fingerprint`).
    """

    version: str
    export: str
    fingerprint: str


class ModelSource(Protocol):
    """Names the model that is to be served. Picklable."""

    def current(self) -> Location:
        """The model that is to be served now. Reads small files alone.

        Raises:
            AlphafuseError: there is none, or the storage does not answer.
        """


@dataclass(frozen=True)
class FixedExport:
    """The export in one folder, or that of a workspace; when it is made again, the new one is served.

    Attributes:
        path: path or URI.
    """

    path: str

    def current(self) -> Location:
        export = Export.find(self.path)
        fingerprint = content_fingerprint(export.require())
        return Location(fingerprint[:SHOWN], export.folder.uri, fingerprint)
