"""Packages that the extras of this distribution bring: which extra to install where one is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re

from alphafuse.errors import AlphafuseError

NAMES = {"vllm": ["cpu", "gpu"], "fastapi": ["serve"], "starlette": ["serve"]}
"""Extras of packages that come in two builds, or that an extra of another distribution brings."""


class MissingPackageError(AlphafuseError):
    """A package is not installed that an extra brings."""


def missing_package(error: ModuleNotFoundError) -> MissingPackageError | None:
    """The error to show in place of an import that failed; None where no extra brings the package."""
    name = _normal((error.name or "").partition(".")[0])
    return _missing(name, "this") if name else None


def require_package(name: str, needed_for: str) -> None:
    """Check that a package is installed that an extra brings.

    Args:
        name: the package, which is imported by the same name.
        needed_for: the setting or the work that needs it, as the message begins.

    Raises:
        MissingPackageError: it is not.
    """
    if importlib.util.find_spec(name) is None:
        error = _missing(name, needed_for)
        assert error is not None, f"no extra brings {name}"
        raise error


def _missing(name: str, needed_for: str) -> MissingPackageError | None:
    # The first extra that names a package is the least that brings it.
    extras = NAMES.get(name) or [extra for requirement, extra in _optional() if requirement == name][:1]
    if not extras:
        return None
    choice = " or ".join(f"pip install 'alphafuse[{extra}]'" for extra in extras)
    return MissingPackageError(f"{needed_for} needs the package {name}, which is not installed: {choice}")


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
