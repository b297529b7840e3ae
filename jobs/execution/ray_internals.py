"""Every private interface of Ray that this project and its tests use.

The name of each function says what it is for, its docstring why no public interface serves. Nothing else imports from a
package of Ray whose name begins with an underscore.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import ENABLE_PREEMPTION_WATCHER_ENV_VAR
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError


def refresh_ray_trains_view() -> None:
    """Make Ray Train look at the cluster again.

    Ray Train does so every 20 seconds, which no public setting changes, and would start workers on lost machines.
    """
    coordinator = get_or_create_autoscaling_coordinator()
    ray.get(coordinator.get_reserved_resources.remote("", recompute=True))


class LeanTrainer(TorchTrainer):
    """Ray Train without the processes that a training of this project has no work for; each takes two CPU seconds.

    One manages data sets of Ray Data, one tells workers of machines that will be taken away, and one gives back the
    places of a controller that dies, which a driver does by itself (`released_places`). Public settings turn off the
    second alone, and by the environment only.

    Args:
        releases_places: whether the caller gives back the places of a controller that dies.
        settings: as `TorchTrainer` takes them.
    """

    def __init__(self, *, releases_places: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self._unused = (DatasetsCallback, PlacementGroupCleanerCallback) if releases_places else (DatasetsCallback,)
        os.environ.setdefault(ENABLE_PREEMPTION_WATCHER_ENV_VAR, "0")

    def _create_default_callbacks(self) -> list[Any]:
        # mypy sees the older of Ray Train's two interfaces.
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        return [each for each in callbacks if not isinstance(each, self._unused)]


@dataclass
class MeetingInFolder(TorchConfig):
    """Settings of Ray Train for ranks of one machine that find each other by a file.

    The public ways, `env` and `tcp`, let torch listen on all addresses of the machine.

    Attributes:
        folder: folder of the file, which others must not be able to write to.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _InFolder


class _InFolder(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: MeetingInFolder) -> None:  # type: ignore[override]
        """Form the process group, as the base class does by an address."""
        worker_group.execute(_set_torch_distributed_env_vars)
        settings = {
            "backend": backend_config.backend,
            "world_size": len(worker_group),
            "init_method": f"file://{backend_config.folder}/ranks-{uuid.uuid4().hex}",
            "timeout_s": backend_config.timeout_s,
        }
        ranks = range(len(worker_group))
        join = _setup_torch_process_group
        ray.get([worker_group.execute_single_async(rank, join, world_rank=rank, **settings) for rank in ranks])


def is_in_task() -> bool:
    """Tell whether this process runs a task or an actor, and is no driver; the public runtime context does not tell."""
    return ray.get_runtime_context().worker.mode == ray.WORKER_MODE


def is_startup_timeout(error: BaseException) -> bool:
    """Tell whether workers found no place in time; `ray.train` exports only the exceptions that wrap this one."""
    return isinstance(error, WorkerGroupStartupTimeoutError)


def startup_timeout(workers: int) -> Exception:
    """The exception of Ray Train where so many workers find no place, for tests; `ray.train` does not export it."""
    return WorkerGroupStartupTimeoutError(num_workers=workers)


def failed_health_check(cause: Exception) -> Exception:
    """The exception of Ray Train where a worker does not answer, for tests; `ray.train` does not export it."""
    return WorkerHealthCheckFailedError("A worker health check failed.", cause)


def filled_launcher_file(config: dict[str, Any]) -> dict[str, Any]:
    """Fill in a file of Ray's cluster launcher as `ray up` does; `ray up` itself would start machines."""
    from ray.autoscaler._private.util import prepare_config

    return prepare_config(config)


def check_launcher_file(config: dict[str, Any]) -> None:
    """Raise where a file of Ray's cluster launcher breaks its schema; `ray up` itself would start machines."""
    from ray.autoscaler._private.util import validate_config

    validate_config(config)


def autoscaling_config(ray_cluster: dict[str, Any]) -> dict[str, Any]:
    """The configuration that Ray's autoscaler reads from a RayCluster of KubeRay; publicly it does so on Kubernetes
    alone."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    return _derive_autoscaling_config_from_ray_cr(ray_cluster)


def keep_replica_on_loopback() -> None:
    """Let the replica of Ray Serve in this process listen on the loopback address alone; to be called when it is made.

    Ray Serve takes all addresses of the machine, which no setting changes.
    """
    from ray.serve._private import replica

    name = "add_port_to_grpc_server"
    add_port = getattr(replica, name)
    setattr(replica, name, lambda server, _: add_port(server, "127.0.0.1:0"))


@contextmanager
def on_loopback() -> Iterator[None]:
    """Let a Ray that is started within the context use, and listen on, the loopback address alone.

    Ray replaces a loopback address that it is given by one that other machines reach, except on systems where it cannot
    form clusters. That is a variable of the environment, which a process reads once, before it knows where it connects.
    """
    from ray._private import ray_constants

    forms_clusters = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = forms_clusters
