"""Packages that the extras of this distribution bring: which extra to install where one is missing."""

from __future__ import annotations

import importlib.metadata
import re

from alphafuse.errors import AlphafuseError

NAMES = {"vllm": ["cpu", "gpu"], "fastapi": ["serve"], "starlette": ["serve"]}
"""Extras of packages that come in two builds, or that an extra of another distribution brings."""


class MissingPackageError(AlphafuseError):
    """A package is not installed that an extra brings."""


def missing_package(error: ModuleNotFoundError) -> MissingPackageError | None:
    """The error to show in place of an import that failed; None where no extra brings the package."""
    name = _normal((error.name or "").partition(".")[0])
    # The first extra that names a package is the least that brings it.
    extras = NAMES.get(name) or [extra for requirement, extra in _optional() if requirement == name][:1]
    if not name or not extras:
        return None
    choice = " or ".join(f"pip install 'alphafuse[{extra}]'" for extra in extras)
    return MissingPackageError(f"this needs the package {name}, which is not installed: {choice}")


def _optional() -> list[tuple[str, str]]:
    """Name and extra of each package that an extra of this distribution brings."""
    found = []
    for requirement in importlib.metadata.requires("alphafuse") or ():
        package = re.match(r"[A-Za-z0-9._-]+", requirement)
        extra = re.search(r"extra == ['\"]([a-z]+)['\"]", requirement)
        if package and package[0] != "alphafuse" and extra and extra[1] != "dev":
            found.append((_normal(package[0]), extra[1]))
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
