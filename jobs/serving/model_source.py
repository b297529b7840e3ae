"""Where the model that is to be served lies, and which one it is at the moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from alphafuse.errors import ConfigError, WorkspaceError
from alphafuse.registry.version_registry import Registry
from alphafuse.serving.export_files import Export
from alphafuse.storage.filesystem.folder import resolve
from alphafuse.storage.manifest import content_fingerprint

SHOWN = 12
"""Number of digits of a fingerprint that name a model without a version."""


@dataclass(frozen=True)
class Location:
    """A model that can be served.

    Attributes:
        version: name of the model in answers: `v0007`, with two deltas `v0007+2`.
        export: URI of its export.
        fingerprint: SHA-256 over the files of the export without its deltas (`content_fingerprint`).
        latest_delta: the same of its latest delta (`alphafuse add-items`); empty: it has none.
    """

    version: str
    export: str
    fingerprint: str
    latest_delta: str = ""

    @property
    def content(self) -> tuple[str, str]:
        """Equal for models that rank alike."""
        return self.fingerprint, self.latest_delta


def located(export: Export, version: str | None = None) -> Location:
    """The location of an export as it is.

    Args:
        version: its version in a registry; None: it is named by its fingerprint.

    Raises:
        WorkspaceError: a manifest is damaged.
    """
    fingerprint = content_fingerprint(export.require())
    deltas = export.deltas
    name = (version or fingerprint[:SHOWN]) + (f"+{len(deltas)}" if deltas else "")
    latest = content_fingerprint(deltas[-1].require()) if deltas else ""
    return Location(name, export.folder.uri, fingerprint, latest)


class ModelSource(Protocol):
    """Names the model that is to be served. Picklable."""

    def current(self) -> Location:
        """The model that is to be served now. Reads small files alone.

        Raises:
            AlphafuseError: there is none, it is damaged, or the storage does not answer.
        """


@dataclass(frozen=True)
class FixedExport:
    """The export in one folder, or that of a workspace; when it is made again or gets a delta, that is served.

    Attributes:
        path: path or URI.
    """

    path: str

    def current(self) -> Location:
        return located(Export.find(self.path))


@dataclass(frozen=True)
class Production:
    """The version in production of a registry: whatever is promoted is served.

    Attributes:
        registry: folder or URI of the registry.
    """

    registry: str

    def current(self) -> Location:
        registry = Registry(self.registry)
        name = registry.alias("production")
        if name is None:
            raise WorkspaceError(
                f"{self.registry} has no version in production:", "choose one, `alphafuse models promote VERSION`"
            )
        version = registry.version(name)
        found = located(Export.find(version.export), version.id)
        if found.fingerprint != version.fingerprint:
            raise WorkspaceError(
                f"{version.export} is not the export of version {version.id} any more: it has been made again.",
                "Add it as a version of its own, `alphafuse models add WORKSPACE`, and promote that one",
            )
        return found


def find_source(model: str | None, registry: str | None) -> ModelSource:
    """The source of the model that is served.

    Args:
        model: path or URI of an export, or of a workspace that has one.
        registry: folder or URI of a registry, whose version in production is served; it wins over `model`.

    Raises:
        ConfigError: both are None.
    """
    if registry is not None:
        return Production(resolve(registry))
    if model is None:
        raise ConfigError("there is nothing to serve: name an export, a workspace, a configuration or a registry")
    return FixedExport(resolve(model))
