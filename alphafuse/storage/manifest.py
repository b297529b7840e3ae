"""Manifests: which files a stage has committed, from which inputs. Plain data, which knows no storage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FORMAT_VERSION = 1
"""Version of the files in a workspace; it rises when an older program could not read them."""
MANIFEST = "manifest.json"
RECORD_SUFFIX = ".record.json"


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of the inputs that an artefact is made from."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class FileRecord:
    """Record of one written file: its name, its rows [first_row, first_row + rows), its size and checksum."""

    name: str
    rows: int
    first_row: int
    bytes: int
    sha256: str
    fingerprint: str
    details: dict[str, Any] = field(default_factory=dict)


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
