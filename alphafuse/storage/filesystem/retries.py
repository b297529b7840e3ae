"""Repeats whole reads and writes if storage fails for a moment, after growing pauses.

Clients of object stores repeat single requests; the retries here last longer, and also serve shared disks, which have
no client.
"""

from __future__ import annotations

import errno
import logging

import tenacity

ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.5

LASTING_TYPES = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
LASTING_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTEMPTY}


def is_transient(error: BaseException) -> bool:
    """True for errors of input or output that another attempt may not meet; False for those of the request itself."""
    return isinstance(error, OSError) and not isinstance(error, LASTING_TYPES) and error.errno not in LASTING_NUMBERS


def attempts() -> tenacity.Retrying:
    """Iterator over up to `ATTEMPTS` attempts, with pauses of 0.5, 1, 2, … seconds plus up to half a second at random.

    The last error is raised unchanged; earlier ones are logged.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_exponential_jitter(initial=FIRST_PAUSE_SECONDS, jitter=FIRST_PAUSE_SECONDS),
        before_sleep=tenacity.before_sleep_log(logging.getLogger(__name__), logging.WARNING),
        reraise=True,
    )
