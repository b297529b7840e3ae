"""Finds what is damaged, missing or out of place in an artefact, and repairs it.

Manifest and copy restore each other, and both restore records. A file that differs from its record is deleted with it,
and the artefact counts as unfinished: its stage makes what is missing, and no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from alphafuse.errors import WorkspaceError
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem.folder import is_temporary
from alphafuse.storage.manifest import (
    MANIFEST,
    MANIFEST_COPY,
    RECORD_SUFFIX,
    FileRecord,
    Manifest,
    NewerFormatError,
    read_manifest,
    read_record,
    to_json,
)
from alphafuse.storage.recorded_files import RECORDS, RecordedFiles
from alphafuse.storage.workspace import origins_of


@dataclass(frozen=True)
class Finding:
    """A file that is not as it should be.

    Attributes:
        file: path of the file in the workspace.
        fault: what is wrong with it.
        needs: what cures it: a repair, another run, or nothing, since it does no harm.
        cure: what the repair does; empty where it does nothing.
    """

    file: str
    fault: str
    needs: Literal["repair", "run", "nothing"]
    cure: str = ""


def stray(file: str) -> Finding:
    """The finding of a file that this program did not write."""
    return Finding(file, "no file of this workspace; it does no harm, and is left alone", "nothing")


@dataclass
class Examination:
    """The findings in an artefact, and what cures them.

    Attributes:
        manifest: what the artefact should hold; None if it is not committed.
        reopened: True if the stage has to make files again, so that the artefact must not count as committed.
        delete: names of files to delete.
        write: contents of files to write, by name.
    """

    artifact: Artifact
    manifest: Manifest | None = None
    findings: list[Finding] = field(default_factory=list)
    reopened: bool = False
    delete: list[str] = field(default_factory=list)
    write: dict[str, bytes] = field(default_factory=dict)

    @property
    def whole(self) -> int:
        """Number of files that are as committed."""
        if self.manifest is None:
            return 0
        return sum(file.name not in self.delete for file in self.manifest.files)

    def find(self, name: str, fault: str, cure: str) -> None:
        self.findings.append(Finding(f"{self.artifact.name}/{name}", fault, "repair", cure))

    def repair(self) -> None:
        """Apply the cures. After an interruption the artefact is not committed, or is as before.

        Raises:
            WorkspaceError: the artefact is borrowed and something is to be done: only the workspace that owns it can.
        """
        if not (self.reopened or self.delete or self.write):
            return
        self.artifact.require_own()
        if self.reopened:
            self.artifact.uncommit()
        self.artifact.folder.delete_files(self.delete)
        for name, content in self.write.items():
            self.artifact.folder.write_bytes(name, content)


def examine(artifact: Artifact) -> Examination:
    """Read every file of an artefact, committed or not, and compare it with manifest and record.

    Raises:
        WorkspaceError: a newer program wrote the artefact.
    """
    sizes = artifact.folder.sizes()
    names = {name for name, size in sizes.items() if size is not None}
    found = Examination(artifact)
    _examine_manifests(found, names)
    if found.manifest is None:
        if names and not found.findings:
            missing = "it is missing: the stage has not finished"
            found.findings.append(Finding(f"{artifact.name}/{MANIFEST}", missing, "nothing"))
        _examine_unfinished(found, artifact)
        for inner in sorted(sizes.keys() - names):
            _examine_unfinished(found, artifact.inner(inner), f"{inner}/")
    else:
        _examine_files(found, found.manifest, names)
        _examine_strays(found, found.manifest, names)
    return found


def origins(manifests: Mapping[str, Manifest | None]) -> list[Finding]:
    """Find artefacts that others were made from, and that are not there or are not those.

    Args:
        manifests: manifests of a workspace by artefact; None: it is not committed.
    """
    findings = {}
    for name, manifest in manifests.items():
        for origin, fingerprint in (origins_of(manifest) if manifest else {}).items():
            lies = manifests[origin]
            if lies is None:
                findings[origin] = Finding(origin, f"it is not finished, but {name!r} was made from it", "run")
            elif lies.fingerprint != fingerprint:
                findings[name] = Finding(name, f"it was made from another {origin!r} than lies here", "run")
    return list(findings.values())


def _examine_manifests(found: Examination, names: set[str]) -> None:
    """Find the manifest: the file, or its copy where the file is damaged."""
    artifact = found.artifact
    there = [name for name in (MANIFEST, MANIFEST_COPY) if name in names]
    manifests, faults = {}, {}
    for name in there:
        try:
            manifests[name] = read_manifest(artifact.folder.read_bytes(name), artifact.name)
        except ValueError as error:
            faults[name] = str(error)
        except NewerFormatError as error:
            raise WorkspaceError(f"{artifact.folder.uri} {error}: run a newer one") from error
    found.manifest = _fitting(artifact, list(manifests.values()), names)
    if found.manifest is None:
        for name in there:
            found.find(name, faults[name], "deleted: the stage finishes the artefact again")
        found.delete += there
        return
    wanted = (MANIFEST, MANIFEST_COPY) if found.manifest.format_version > 1 else there
    for name in wanted:
        if manifests.get(name) != found.manifest:
            fault = faults.get(name, "it differs from the manifest" if name in manifests else "it is missing")
            found.find(name, fault, "restored from its twin")
            found.write[name] = to_json(found.manifest)


def _fitting(artifact: Artifact, manifests: Sequence[Manifest], names: set[str]) -> Manifest | None:
    """The manifest that most files and records agree with, the first where several do; None if there is none."""
    if len(manifests) < 2 or manifests[0] == manifests[1]:
        return next(iter(manifests), None)

    def agreeing(manifest: Manifest) -> int:
        faults = (
            fault for file in manifest.files for fault in (artifact.fault(file), _record_fault(artifact, file, names))
        )
        return sum(not fault for fault in faults)

    return max(manifests, key=agreeing)


def _examine_files(found: Examination, manifest: Manifest, names: set[str]) -> None:
    """Compare the files of a manifest with it, and their records."""
    artifact = found.artifact
    for file in manifest.files:
        record = file.name + RECORD_SUFFIX
        if fault := artifact.fault(file):
            found.find(file.name, fault, "deleted: the stage makes it again")
            found.delete += [record, file.name]
            found.reopened = True
        elif fault := _record_fault(artifact, file, names):
            found.find(record, fault, "restored from the manifest")
            found.write[record] = to_json(file)
    if found.reopened:
        found.write.pop(MANIFEST, None)
        found.write.pop(MANIFEST_COPY, None)


def _record_fault(artifact: Artifact, file: FileRecord, names: set[str]) -> str:
    if file.name + RECORD_SUFFIX not in names:
        return "it is missing"
    try:
        record = read_record(artifact.folder.read_bytes(file.name + RECORD_SUFFIX), file.name)
    except ValueError as error:
        return str(error)
    return "" if record == file else "it differs from the manifest"


def _examine_strays(found: Examination, manifest: Manifest, names: set[str]) -> None:
    """Find files that the manifest does not name. Those of this program are deleted, others are left alone."""
    ours = {file.name + suffix for file in manifest.files for suffix in ("", RECORD_SUFFIX)}
    for name in sorted(names - ours - {MANIFEST, MANIFEST_COPY}):
        if name.endswith(RECORDS) or is_temporary(name):
            found.find(name, "it belongs to no file of the manifest", "deleted")
            found.delete.append(name)
        else:
            path = f"{found.artifact.name}/{name}"
            found.findings.append(stray(path))


def _examine_unfinished(found: Examination, files: RecordedFiles, inside: str = "") -> None:
    """Compare the files that a stage has written so far with their records.

    Args:
        inside: path of the files in the artefact, which ends with a slash.
    """
    sizes = files.folder.sizes()
    records, faults = files.examine_records(sizes)
    for name, fault in sorted(faults.items()):
        found.find(inside + name, fault, "deleted: the stage makes its files again")
        found.delete.append(inside + name)
    for name, file in sorted(records.items()):
        beside = [name + RECORD_SUFFIX] if name + RECORD_SUFFIX in sizes else []
        # A file that only an index names may be gone: it does not count as written, and its record cannot be deleted.
        if (beside or name in sizes) and (fault := files.fault(file)):
            found.find(inside + name, fault, "deleted: the stage makes it again")
            found.delete += [inside + deleted for deleted in [*beside, name]]
