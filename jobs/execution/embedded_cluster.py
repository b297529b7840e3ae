"""Keeps a Ray cluster that is embedded in a driver to this user, this machine and the life of the driver.

Ray by itself makes its session folder writable for everybody (another user could replace the code that workers load),
listens on all addresses of the machine, and writes its token readable for everybody.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alphafuse.errors import AlphafuseError, ResourceError
from jobs.execution.ray_internals import on_loopback
from jobs.execution.reaper import reaper
from jobs.execution.token_file import MODE_VARIABLE, ensure_token
from jobs.execution.variables import variables

GLOO_VARIABLE = "GLOO_SOCKET_IFNAME"
MEETING_VARIABLE = "ALPHAFUSE_MEETING_FOLDER"
"""Environment variable with the folder in which the ranks of an embedded Ray find each other. All processes of such a
Ray have it: a comparison starts ranks from tasks."""
SOCKETS_FOLDER = "/tmp"
"""The place of sessions, unless `RAY_TMPDIR` names another place: a session holds sockets, whose paths may have 107
characters, 78 of which are taken. Large files lie below TMPDIR, however long that is."""
SPILLING_VARIABLE = "RAY_object_spilling_directory"


@contextmanager
def embedded_cluster() -> Iterator[dict[str, Any]]:
    """Context for a Ray that is embedded in this process: started with the arguments that are yielded, and shut down at
    the end of the block.

    Its folders are closed to other users, its processes listen on the loopback address, and none of them outlives this
    process. Ray's logs are kept where they may explain an error.

    Raises:
        ClusterError: see `ensure_token`.
    """
    if os.environ.get(MODE_VARIABLE, "token").lower() != "disabled":
        ensure_token()
    session, spilled = private_session_folder(), tempfile.mkdtemp(prefix="alphafuse-ray-")
    try:
        with reaper(session, spilled), on_loopback(), _ranks_on_loopback(session):
            # Ray opens the folders that it is given to everybody: only the ones above them are closed.
            objects = os.environ.get(SPILLING_VARIABLE) or f"{spilled}/objects"
            yield {"_temp_dir": f"{session}/r", "object_spilling_directory": objects}
    finally:
        shutil.rmtree(spilled, ignore_errors=True)
        logs = Path(session, "r", "session_latest", "logs")
        if logs.exists() and _is_explained_by_ray(sys.exception()):
            print(f"the logs of Ray are in {logs}", file=sys.stderr)  # in the log of the run
        else:
            shutil.rmtree(session, ignore_errors=True)


def _is_explained_by_ray(error: BaseException | None) -> bool:
    """Tell whether Ray's logs may say more about an error: not about one in a user's data or settings."""
    if isinstance(error, AlphafuseError):
        return isinstance(error, ResourceError)
    return isinstance(error, Exception)


@contextmanager
def _ranks_on_loopback(session: str) -> Iterator[None]:
    """Let ranks meet in the folder of the session, and on CPUs talk on the loopback address: torch would listen on all
    addresses, and Gloo take that of the host name."""
    chosen = {MEETING_VARIABLE: session}
    loopback = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]  # Linux, macOS
    if GLOO_VARIABLE not in os.environ and loopback:
        chosen[GLOO_VARIABLE] = loopback[0]
    with variables(chosen):
        yield


def private_session_folder() -> str:
    """Make a folder that this user alone can enter (mode 0700), with a short path, for the sessions of a Ray."""
    above = os.environ.get("RAY_TMPDIR") or SOCKETS_FOLDER
    Path(above).mkdir(parents=True, exist_ok=True)
    return tempfile.mkdtemp(prefix="af-", dir=above)
