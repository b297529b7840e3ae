"""Every private interface of Ray that this project and its tests use, by a name that says what for, and why no public
one does. Nothing else imports from a package of Ray whose name begins with an underscore.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError


def refresh_ray_trains_view() -> None:
    """Have Ray Train's view of the cluster taken anew.

    Ray Train takes it every 20 seconds, which no public setting changes, and would start workers on lost machines.
    """
    coordinator = get_or_create_autoscaling_coordinator()
    ray.get(coordinator.get_reserved_resources.remote("", recompute=True))


def is_in_task() -> bool:
    """Tell the process of a task or an actor from a driver's, which the public runtime context does not."""
    return ray.get_runtime_context().worker.mode == ray.WORKER_MODE


def is_startup_timeout(error: BaseException) -> bool:
    """Tell that workers found no place in time; `ray.train` exports only the exceptions that wrap this one."""
    return isinstance(error, WorkerGroupStartupTimeoutError)


def startup_timeout(workers: int) -> Exception:
    """What Ray Train raises where so many workers find no place, for tests; not exported, as above."""
    return WorkerGroupStartupTimeoutError(num_workers=workers)


def failed_health_check(cause: Exception) -> Exception:
    """What Ray Train raises where a worker does not answer, for tests; not exported, as above."""
    return WorkerHealthCheckFailedError("A worker health check failed.", cause)


def filled_launcher_file(config: dict[str, Any]) -> dict[str, Any]:
    """A file of Ray's cluster launcher, filled in as `ray up` does, which itself would start machines."""
    from ray.autoscaler._private.util import prepare_config

    return prepare_config(config)


def check_launcher_file(config: dict[str, Any]) -> None:
    """Raise where a file of Ray's cluster launcher breaks its schema; `ray up` itself would start machines."""
    from ray.autoscaler._private.util import validate_config

    validate_config(config)


def autoscaling_config(ray_cluster: dict[str, Any]) -> dict[str, Any]:
    """What Ray's autoscaler reads out of a RayCluster of KubeRay; publicly it does so on Kubernetes alone."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    return _derive_autoscaling_config_from_ray_cr(ray_cluster)
