"""Shared fixtures and the search path of test helpers."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster
    from support.servers.object_store import ObjectStore
    from support.servers.watched_run import WatchedRun

sys.path.insert(0, str(Path(__file__).parent))
# numpy and torch read this when they are imported. Tests run side by side: more threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine takes long over any example; no test measures time.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)  # before pytest selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the shared Ray cluster; `make test` runs the other tests beside them."""
    for item in items:
        if "ray_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.on_ray)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """A Ray cluster of one machine with 4 CPUs, shared by all tests that need one. Tests of lost machines add more
    machines while they run (`tests/support/faults/fault_machines.py`)."""
    import ray
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray")  # short: the path of a socket has 107 characters
    with pytest.MonkeyPatch.context() as patch:
        # Ray notes the address of a started cluster here, so that other processes of this machine do not find it.
        patch.setenv("RAY_TMPDIR", folder)
        # A machine counts as dead when it has refused to answer for 10 seconds; a slow one has longer.
        system = {"health_check_period_ms": 500, "health_check_failure_threshold": 20}
        head = {"num_cpus": 4, "include_dashboard": False, "include_log_monitor": False, "_system_config": system}
        cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def watched_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedRun]:
    """A finished run of all stages beside a Prometheus, shared by all tests about whole runs."""
    from support.servers.watched_run import watched_run

    with watched_run(tmp_path_factory.mktemp("watched")) as run:
        yield run


@pytest.fixture(scope="session")
def started_object_store() -> Iterator[ObjectStore]:
    """An S3 server in a thread of this process, shared by all tests that need one."""
    from support.servers.object_store import object_store

    with object_store() as store:
        yield store


@pytest.fixture
def bucket(started_object_store: ObjectStore) -> Iterator[ObjectStore]:
    """The shared S3 server with an empty bucket, to which all URIs `s3://bucket/…` lead."""
    from support.servers.object_store import leading_to

    with leading_to(started_object_store) as store:
        yield store
