"""Storage that fails for a moment: whatever is read or written whole is tried again, after growing pauses.

Object stores' own clients repeat single requests; this outlasts them, and serves shared disks, which have no client.
"""

from __future__ import annotations

import errno
import logging

import tenacity

ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.5

LASTING_TYPES = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
LASTING_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTEMPTY}


def may_pass(error: BaseException) -> bool:
    """Whether another attempt may succeed: an error of input or output that does not lie in what was asked for."""
    return isinstance(error, OSError) and not isinstance(error, LASTING_TYPES) and error.errno not in LASTING_NUMBERS


def attempts() -> tenacity.Retrying:
    """Up to `ATTEMPTS` attempts, to iterate over; between them 0.5, 1, 2, … seconds and up to a second at random.

    The last error is raised as it is, every earlier one logged.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_pass),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_exponential_jitter(initial=FIRST_PAUSE_SECONDS, jitter=FIRST_PAUSE_SECONDS),
        before_sleep=tenacity.before_sleep_log(logging.getLogger(__name__), logging.WARNING),
        reraise=True,
    )
