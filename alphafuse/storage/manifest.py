"""Manifests and records: which files a stage has committed, from which inputs. Plain data, which knows no storage.

Both are JSON objects with a seal, a hash of all their other fields: a reader tells a damaged one from a whole one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError, with_config

FORMAT_VERSION = 2
"""Version of the files in a workspace; it rises when an older program could not read them. Files of version 1 have no
seals, no copies of manifests, and no hashes of Parquet footers. Seals are made alike in all later versions, so that a
newer file is told from a damaged one."""
MANIFEST = "manifest.json"
MANIFEST_COPY = "manifest.copy.json"
"""A second manifest with the same content, from which a damaged one is restored."""
RECORD_SUFFIX = ".record.json"
INDEX_SUFFIX = ".records.json"
"""Ending of a file with the records of many files, in place of one beside each (`record_index.py`)."""
SEAL = "seal"

T = TypeVar("T")


def plain_name(name: str) -> str:
    """Return `name`, which must be the name of a file or folder, and no path that leads elsewhere.

    Raises:
        ValueError: it is none.
    """
    if name in ("", ".", "..") or set(name) & set("/\\") or not name.isprintable():
        raise ValueError(f"{name!r} is not the plain name of a file")
    return name


def _data_file(name: str) -> str:
    if name in (MANIFEST, MANIFEST_COPY) or name.endswith((RECORD_SUFFIX, INDEX_SUFFIX)):
        raise ValueError(f"{name!r} is not the name of a file with data")
    return plain_name(name)


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of the inputs that an artefact is made from."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def is_fingerprint(value: object) -> bool:
    """Tell whether a value is a result of `fingerprint`."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class FileRecord:
    """Record of one written file.

    Attributes:
        name: name of the file.
        rows, first_row: the file holds the rows [first_row, first_row + rows).
        bytes, sha256: size and checksum of the whole file.
        fingerprint: fingerprint of the inputs that it was made from.
        details: what the stage counted.
        footer: of a Parquet file the SHA-256 of its footer, which holds places, sizes and ranges of values of all
            columns: it tells cheaply whether this file lies under the name. Empty for other files.
    """

    name: Annotated[str, AfterValidator(_data_file)]
    rows: int
    first_row: int
    bytes: int
    sha256: str
    fingerprint: str
    details: dict[str, Any] = field(default_factory=dict)
    footer: str = ""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Manifest:
    """Record of a committed artefact: its files, its inputs, and what the stage reports about it (`details`)."""

    artifact: str
    fingerprint: str
    inputs: dict[str, Any]
    files: list[FileRecord]
    details: dict[str, Any]
    created: str
    format_version: int = FORMAT_VERSION

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    def file(self, name: str) -> FileRecord | None:
        """The record of a file; None if the artefact has no such file."""
        return next((file for file in self.files if file.name == name), None)


def content_fingerprint(manifest: Manifest) -> str:
    """SHA-256 over names and checksums of all files of an artefact: equal for equal content. (The fingerprint of a
    manifest covers what its artefact was made from.)"""
    return fingerprint({file.name: file.sha256 for file in manifest.files})


class NewerFormatError(Exception):
    """A newer program wrote a file."""


def to_json(content: FileRecord | Manifest) -> bytes:
    """The content of the file of a record or a manifest, with its seal."""
    return _sealed(asdict(content))


def index_to_json(records: Sequence[FileRecord]) -> bytes:
    """The content of an index of records, with its seal."""
    return _sealed({"files": [asdict(record) for record in records]})


def read_index(content: bytes) -> list[FileRecord]:
    """Read an index of records.

    Raises:
        ValueError: this is none, or a damaged one.
    """
    fields, is_sealed = _unsealed(content)
    if not is_sealed:
        raise ValueError("it has lost its seal")
    return _checked(_INDEX, fields.get("files"))


def read_record(content: bytes, file: str) -> FileRecord:
    """Read the record of the file called `file`.

    Raises:
        ValueError: this is no record, a damaged one, or that of another file.
    """
    fields, is_sealed = _unsealed(content)
    if "footer" in fields and not is_sealed:
        raise ValueError("it has lost its seal")
    record = _checked(_RECORD, fields)
    if record.name != file:
        raise ValueError(f"it is the record of {record.name!r}")
    return record


def read_manifest(content: bytes, artifact: str) -> Manifest:
    """Read the manifest of the artefact called `artifact`.

    Raises:
        NewerFormatError: a newer program wrote it.
        ValueError: this is no manifest, a damaged one, or that of another artefact.
    """
    fields, is_sealed = _unsealed(content)
    version = fields.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise NewerFormatError(f"has format {version}, this version of alphafuse reads up to {FORMAT_VERSION}")
    if version != 1 and not is_sealed:
        raise ValueError("it has lost its seal")
    manifest = _checked(_MANIFEST, fields)
    if manifest.artifact != artifact:
        raise ValueError(f"it is the manifest of {manifest.artifact!r}")
    return manifest


def read_json_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: the content is something else.
    """
    try:
        fields = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("it holds no JSON object")
    return fields


def changed_inputs(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted paths at which two trees of inputs differ, with both values."""
    changes = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes += changed_inputs(before, after, f"{prefix}{key}.")
        elif before != after:
            changes.append(f"{prefix}{key}: {before!r} → {after!r}")
    return changes


_RECORD = TypeAdapter(FileRecord)
_INDEX = TypeAdapter(list[FileRecord])
_MANIFEST = TypeAdapter(Manifest)


def _sealed(fields: Mapping[str, Any]) -> bytes:
    plain = json.loads(json.dumps(fields))  # as it will be read back: keys are texts, tuples are lists
    return json.dumps({**plain, SEAL: fingerprint(plain)}, indent=1, ensure_ascii=False).encode()


def _unsealed(content: bytes) -> tuple[dict[str, Any], bool]:
    """The fields of a JSON object, and whether it has a seal.

    Raises:
        ValueError: the content is no JSON object, or differs from its seal.
    """
    fields = read_json_object(content)
    seal = fields.pop(SEAL, None)
    if seal is not None and seal != fingerprint(fields):
        raise ValueError("its content differs from its seal")
    return fields, seal is not None


def _checked(kind: TypeAdapter[T], fields: object) -> T:
    try:
        return kind.validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}") from None
