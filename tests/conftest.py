"""Shared fixtures and the search path of test helpers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """An embedded Ray with 4 CPUs, shared by all tests that need one."""
    import ray

    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    ray.init("local", num_cpus=4, **quiet)  # whatever else runs on this machine
    yield
    ray.shutdown()
