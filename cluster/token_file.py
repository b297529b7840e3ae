"""Finds the token of a Ray cluster where Ray itself looks for it, or makes one.

The token allows to run any code on the cluster. It is passed in files, environment variables and HTTP headers; never on
a command line, which other users of a machine can see, and never in a log.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from alphafuse.errors import ClusterError

MODE_VARIABLE = "RAY_AUTH_MODE"
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"


def token_file() -> Path:
    """Path of the token file, which need not exist: `RAY_AUTH_TOKEN_PATH`, or Ray's default."""
    return Path(os.environ.get(PATH_VARIABLE) or Path.home() / ".ray" / "auth_token")


def find_token() -> str | None:
    """Read the token from `RAY_AUTH_TOKEN` or from the token file; None if there is neither.

    Raises:
        ClusterError: the file cannot be read, or is empty.
    """
    if token := os.environ.get(TOKEN_VARIABLE):
        return token
    file = token_file()
    try:
        token = file.read_text().strip()
    except FileNotFoundError:
        if PATH_VARIABLE in os.environ:
            raise ClusterError(f"{PATH_VARIABLE} names {file}, which does not exist") from None
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"the token file {file} cannot be read: {error}") from error
    if not token:
        raise ClusterError(f"the token file {file} is empty: delete it, or put the cluster's token into it")
    return token


def require_token() -> str | None:
    """Read the token for a cluster; None if `RAY_AUTH_MODE=disabled` says that the cluster takes none.

    Raises:
        ClusterError: there is no token.
    """
    if os.environ.get(MODE_VARIABLE, "token").lower() == "disabled":
        return None
    token = find_token()
    if token is None:
        raise ClusterError(
            f"there is no token to show to the cluster. Put its token into {token_file()} (readable by you alone), or "
            f"name the file that holds it in {PATH_VARIABLE}. `alphafuse local up` makes one for a cluster on this "
            f"machine. For a cluster that knowingly takes no token, set {MODE_VARIABLE}=disabled"
        )
    return token


def ensure_token() -> str:
    """Read the token for a cluster on this machine; if there is none, make one that its owner alone can read."""
    token = None if PATH_VARIABLE in os.environ and not token_file().exists() else find_token()
    if token is None:
        token, file = secrets.token_hex(32), token_file()
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(token)
    return token


def show_token_to_clusters() -> None:
    """Make Ray send the token, if there is one, to the clusters that this process connects to. Must be called before
    Ray is imported, since Ray reads the mode at that moment."""
    if MODE_VARIABLE not in os.environ and (TOKEN_VARIABLE in os.environ or token_file().exists()):
        os.environ[MODE_VARIABLE] = "token"


def headers(token: str | None) -> dict[str, str]:
    """HTTP headers that show the token."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}
