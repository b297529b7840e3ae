"""A file system that fails for a moment, now and then: `flaky://` is the local disk with input and output errors."""

from __future__ import annotations

import random
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

PROTOCOL = "flaky"


class FlakyFileSystem(LocalFileSystem):
    """File system whose calls and reads fail when `schedule` returns True.

    Attributes:
        schedule: asked at every call and read, in their order.
        failures: number of failures so far.
    """

    protocol = PROTOCOL
    cachable = False
    schedule = staticmethod(lambda: False)
    failures = 0

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return LocalFileSystem._strip_protocol(str(path).removeprefix(f"{PROTOCOL}://"))

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        _perhaps_fail(f"info of {path}")
        return super().info(path, **kwargs)

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> list[Any]:
        _perhaps_fail(f"list of {path}")
        return super().ls(path, detail, **kwargs)

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        _perhaps_fail(f"move to {path2}")
        super().mv(path1, path2, **kwargs)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        _perhaps_fail(f"open of {path}")
        file = super()._open(path, mode, **kwargs)
        if "r" in mode:
            read = file.read

            def reads(size: int = -1) -> bytes:
                _perhaps_fail(f"read of {path}")
                return read(size)

            file.read = reads
        return file


def fail_at(calls: set[int]) -> None:
    """Fail at the calls with these numbers from now on, and at no others."""
    counter = iter(range(10**9))
    _schedule(lambda: next(counter) in calls)


def fail_at_random(probability: float, seed: int) -> None:
    """Fail with some probability from now on."""
    generator = random.Random(seed)
    _schedule(lambda: generator.random() < probability)


def _schedule(schedule: Any) -> None:
    FlakyFileSystem.schedule = staticmethod(schedule)
    FlakyFileSystem.failures = 0


def _perhaps_fail(what: str) -> None:
    if FlakyFileSystem.schedule():
        FlakyFileSystem.failures += 1
        raise OSError(f"the {what} was reset by the server")


fsspec.register_implementation(PROTOCOL, FlakyFileSystem, clobber=True)
