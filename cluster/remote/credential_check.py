"""Checks that settings hold no credentials: they are shown in the workspace, in Ray's logs and on dashboards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from alphafuse.errors import ConfigError

_PASSWORD_IN_URI = re.compile(r"://[^/@:\s]*:(?!\d+/)[^@\s]*@")  # digits up to a slash are a port, and no password
_SECRET_NAME = re.compile(
    r"passw(or)?d|(^|[_.-])(secret|token|(api|access|private|account|storage)[_-]?key)([_.-]|$)", re.IGNORECASE
)
_PARAMETER_OF_URI = re.compile(r"://\S*[?&]([^=&\s]+)=")
_NAME_OF_FILE = re.compile(r"_(file|path|dir)$", re.IGNORECASE)


def require_no_credentials(tree: Mapping[str, Any]) -> None:
    """Check that no text in a tree of plain values has the name of a secret, or is a URI with a password.

    Raises:
        ConfigError: there is such a text; the message gives its key and not its value.
    """
    for key, name, value in _texts("", "", tree):
        if _PASSWORD_IN_URI.search(value) or any(map(_SECRET_NAME.search, _PARAMETER_OF_URI.findall(value))):
            what = "holds credentials in its URI"
        elif _SECRET_NAME.search(name) and not _NAME_OF_FILE.search(name):
            what = "holds credentials by its name"
        else:
            continue
        raise ConfigError(
            f"{key} {what}, and would be seen in the workspace, in Ray's logs or on its dashboard. Give credentials to "
            "the machines of the cluster instead (a role, a mounted secret, environment variables of their own such as "
            "AWS_ACCESS_KEY_ID)"
        )


def _texts(key: str, name: str, node: object) -> Iterator[tuple[str, str, str]]:
    """Yields the dotted key, the last name in the key, and the value of every text in a tree."""
    if isinstance(node, str):
        yield key, name, node
    elif isinstance(node, Mapping):
        for below, value in node.items():
            yield from _texts(f"{key}.{below}".lstrip("."), str(below), value)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _texts(f"{key}.{number}", name, value)
