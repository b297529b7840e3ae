"""Sends what dependencies print to a file, so that the terminal shows only what the user asked for.

Ray, vLLM and DeepSpeed write through loggers, `print` and C++; all of it passes file descriptors 1 and 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def output_to_file(path: Path) -> Iterator[tuple[TextIO, TextIO]]:
    """Context that appends standard output and error of this process and its children to a file.

    Yields:
        The real standard output and error, as text streams.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with open(path, "a", encoding="utf-8") as log, open(kept[0], "w") as output, open(kept[1], "w") as errors:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
        try:
            yield output, errors
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, real in zip((1, 2), kept, strict=True):
                os.dup2(real, descriptor)
