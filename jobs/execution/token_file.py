"""Finds the token of a Ray cluster where Ray itself looks for it, or that of the web service, or makes one.

The token of a cluster allows to run any code on it; that of the web service, to ask for recommendations. Tokens are
passed in files, environment variables and HTTP headers; never on a command line, which other users of a machine can
see, and never in a log. Ray itself would write the file readable for everybody: so that it never does, the token is
made here before a cluster starts.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from alphafuse.errors import AlphafuseError, ClusterError
from alphafuse.storage.filesystem.private_folder import home, make_private

MODE_VARIABLE = "RAY_AUTH_MODE"
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"


@dataclass(frozen=True)
class TokenPlace:
    """Where a token is looked for.

    Attributes:
        token_variable: environment variable that holds the token itself.
        path_variable: environment variable that names its file.
        default: path of the file otherwise, from the home folder on.
    """

    token_variable: str
    path_variable: str
    default: str


CLUSTER = TokenPlace(TOKEN_VARIABLE, PATH_VARIABLE, ".ray/auth_token")
"""The token of a cluster, where Ray looks for it."""
SERVICE = TokenPlace("ALPHAFUSE_SERVE_TOKEN", "ALPHAFUSE_SERVE_TOKEN_PATH", ".config/alphafuse/serve_token")
"""The token of the web service. It is another one, since clients of the service must not run code on the cluster."""


def token_file(place: TokenPlace = CLUSTER) -> Path:
    """Path of the token file, which need not exist."""
    return Path(os.environ.get(place.path_variable) or home() / place.default)


def find_token(place: TokenPlace = CLUSTER) -> str | None:
    """Read the token from its variable or from the token file; None if there is neither. A file that others could
    read is narrowed first.

    Raises:
        ClusterError: the file cannot be read or narrowed, belongs to another user, or is empty.
    """
    if token := os.environ.get(place.token_variable):
        return token
    file = token_file(place)
    try:
        keep_private(file)
        token = file.read_text().strip()
    except FileNotFoundError:
        if place.path_variable in os.environ:
            raise ClusterError(f"{place.path_variable} names {file}, which does not exist") from None
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"the token file {file} cannot be read: {error}") from error
    if not token:
        raise ClusterError(f"the token file {file} is empty: delete it, or put the token into it")
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


def ensure_token(place: TokenPlace = CLUSTER) -> str:
    """Read the token for what is started on this machine; if there is none, make one that its owner alone can read.

    Raises:
        ClusterError: as for `find_token`, or the file cannot be made.
    """
    file = token_file(place)
    if place.token_variable not in os.environ:
        try:
            if not file.parent.exists() or (place.path_variable not in os.environ and _is_own(file.parent)):
                make_private(file.parent)  # a folder of a user's choice may be one that others need
            if not file.exists():
                _make(file)
        except OSError as error:
            raise ClusterError(f"the token file {file} cannot be made: {error.strerror or error}") from error
    token = find_token(place)
    assert token is not None
    return token


def _is_own(path: Path) -> bool:
    return path.stat().st_uid == os.geteuid()


def _make(file: Path) -> None:
    """Write a new token. The file appears whole, so that a run that starts at the same moment reads the same token."""
    unfinished = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(secrets.token_hex(32))
    try:
        os.link(unfinished, file)
    except FileExistsError:  # another run was first
        pass
    finally:
        unfinished.unlink()


def keep_private(file: Path) -> None:
    """Take the rights of others from a token file, and say so: they could have acted as its owner. A file of root,
    such as a secret that Kubernetes mounts, is left as the administrator made it.

    Raises:
        ClusterError: the file belongs to another user, or its rights cannot be taken from others.
        FileNotFoundError: there is no such file.
    """
    found = file.stat()
    if found.st_uid == 0 != os.geteuid():
        return
    if found.st_uid != os.geteuid():
        raise ClusterError(
            f"the token file {file} belongs to another user (id {found.st_uid}), who could act as you: give a file "
            "of your own"
        )
    mode = stat.S_IMODE(found.st_mode)
    if not mode & 0o077:
        return
    try:
        file.chmod(0o600)
    except OSError as error:
        raise ClusterError(
            f"others can read the token file {file} (mode {mode:04o}), and it cannot be changed ({error.strerror}): "
            "give it mode 0600, or 0400 where it is mounted"
        ) from error
    print(
        f"! others could read the token file {file} (mode {mode:04o}); it is yours alone now. If others use this "
        "machine, delete it while nothing runs that takes it: the next start makes a new token",
        file=sys.stderr,
    )


def show_token_to_clusters() -> None:
    """Make Ray send the token, if there is one, to the clusters that this process connects to, and narrow its file.

    Must be called before Ray is imported, since Ray reads the mode at that moment. A file that cannot be used is an
    error of the commands that need it, and not of all.
    """
    with suppress(AlphafuseError, OSError):
        if TOKEN_VARIABLE not in os.environ:
            keep_private(token_file())
    with suppress(AlphafuseError):
        if MODE_VARIABLE not in os.environ and (TOKEN_VARIABLE in os.environ or token_file().exists()):
            os.environ[MODE_VARIABLE] = "token"


def headers(token: str | None) -> dict[str, str]:
    """HTTP headers that show the token."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}
