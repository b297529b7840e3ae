"""A version of a model: a finished workspace, and what was true of it when it was added to a registry."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeVar

from pydantic import StringConstraints, TypeAdapter, ValidationError

from alphafuse.errors import WorkspaceError
from alphafuse.stages import ARTIFACTS
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.manifest import SEAL, content_fingerprint, fingerprint, read_json_object
from alphafuse.storage.workspace import Workspace

EXPORT = "export"
MODEL_FILE = "model.json"
VERSION_ID = "^v[0-9]{4,9}$"
VersionId = Annotated[str, StringConstraints(pattern=VERSION_ID)]
T = TypeVar("T")


@dataclass(frozen=True)
class Version:
    """One version of a model. Immutable: what is made again in its workspace later is another version.

    Attributes:
        id: name in the registry, such as `v0007`; later versions have larger numbers.
        workspace: URI of the workspace.
        fingerprint: SHA-256 over the files of the export (`content_fingerprint`): two versions with the same one rank
            alike. Query and item side that are read apart from each other must have the same.
        created: when the export was finished, in ISO 8601 and UTC.
        artifacts: fingerprints of the workspace's artefacts, by name.
        parent: fingerprint of the model that an update continued; None for a training from scratch.
        code: versions of the packages that wrote the export.
        metrics: metrics of the test targets, such as `ndcg@10`; empty where nothing was evaluated.
        items: number of items in the export.
        train_seconds: seconds of training, without validation.
        drift: drift of the catalog and what became of the null space; None for a training from scratch, and for models
            without a null space.
        warm_start: numbers of carried, new and removed items; None for a training from scratch.
        stability: agreement of the lists with those of the parent; None where it was not measured.
    """

    id: VersionId
    workspace: str
    fingerprint: str
    created: str
    artifacts: dict[str, str]
    parent: str | None
    code: dict[str, str]
    metrics: dict[str, float]
    items: int
    train_seconds: float
    drift: dict[str, Any] | None = None
    warm_start: dict[str, Any] | None = None
    stability: dict[str, float] | None = None

    @property
    def number(self) -> int:
        """The number in the id."""
        return int(self.id[1:])

    @property
    def export(self) -> str:
        """URI of the folder that `alphafuse.load` takes."""
        return f"{self.workspace.rstrip('/')}/{EXPORT}"

    def require_whole(self) -> None:
        """Check that the export of the workspace is still the one of this version. Reads its manifest alone.

        Raises:
            WorkspaceError: it was deleted, damaged or made again.
        """
        if content_fingerprint(Workspace(self.workspace).artifact(EXPORT).require()) != self.fingerprint:
            raise WorkspaceError(
                f"the export in {self.workspace} is not that of version {self.id}: it has been made again.",
                f"Add it as a version of its own: `alphafuse models add {self.workspace}`",
            )


def parent_of(version: Version, versions: Sequence[Version]) -> str:
    """The version among `versions` that an update continued, for people; the latest where several have its model."""
    if version.parent is None:
        return "–"
    known = [each.id for each in versions if each.artifacts["model"] == version.parent]
    return known[-1] if known else "not in the registry"


def is_version_id(name: str) -> bool:
    """Tell whether a text has the form of a version's id."""
    return re.fullmatch(VERSION_ID, name) is not None


def describe(version_id: str, workspace: Workspace) -> Version:
    """Describe a finished workspace as a version.

    Raises:
        UnfinishedError: it has no finished export or model.
        StaleError: export or evaluation are not those of its model.
        WorkspaceError: a file is damaged.
    """
    manifests = {name: workspace.artifact(name).manifest() for name in ARTIFACTS}
    export = workspace.artifact(EXPORT)
    manifest, model = export.require(), workspace.artifact("model").require()
    workspace.require_origins(EXPORT)
    metrics: dict[str, float] = {}
    if manifests["evaluation"] is not None:
        workspace.require_origins("evaluation")
        metrics = json.loads(workspace.artifact("evaluation").read_file("metrics.json"))["overall"]
    report, nullspace = manifests["report"], manifests["nullspace"]
    return Version(
        id=version_id,
        workspace=workspace.folder.uri,
        fingerprint=content_fingerprint(manifest),
        created=manifest.created,
        artifacts={name: each.fingerprint for name, each in manifests.items() if each is not None},
        parent=model.inputs.get("parent"),
        code=_code(export),
        metrics=metrics,
        items=manifest.rows,
        train_seconds=sum(epoch["seconds"] for epoch in model.details.get("history", ())),
        drift=None if nullspace is None else nullspace.details.get("update"),
        warm_start=model.details.get("update"),
        stability=None if report is None else report.details.get("stability"),
    )


def _code(export: Artifact) -> dict[str, str]:
    try:
        return {
            str(name): str(number)
            for name, number in read_json_object(export.read_file(MODEL_FILE))["versions"].items()
        }
    except (ValueError, KeyError, AttributeError) as error:
        raise export.damaged(MODEL_FILE, error) from error


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """A sealed JSON object, as the files of a registry are."""
    plain = json.loads(json.dumps(content))
    return json.dumps({**plain, SEAL: fingerprint(plain)}, indent=1, ensure_ascii=False).encode()


def from_bytes(content: bytes) -> dict[str, Any]:
    """Read what `to_bytes` has written.

    Raises:
        ValueError: it is damaged.
    """
    fields = read_json_object(content)
    if fields.pop(SEAL, None) != fingerprint(fields):
        raise ValueError("its content differs from its seal")
    return fields


def read_version(content: bytes) -> Version:
    """Read the file of a version; an older program leaves out what a newer one has added.

    Raises:
        ValueError: it is damaged.
    """
    return validated(_VERSION, from_bytes(content))


def validated(kind: TypeAdapter[T], fields: dict[str, Any]) -> T:
    """Make an object of the fields of a file.

    Raises:
        ValueError: a field is missing or has another type.
    """
    try:
        return kind.validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def version_to_bytes(version: Version) -> bytes:
    """The content of the file of a version."""
    return to_bytes(asdict(version))


_VERSION = TypeAdapter(Version)
