"""The web service as an application of Ray Serve: started by `alphafuse serve`, or by a RayService of Kubernetes."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve.config import DeploymentActorConfig
from ray.serve.schema import LoggingConfig

from alphafuse.config.sections.serve import ServeConfig
from alphafuse.errors import ClusterError
from jobs.execution.token_file import SERVICE, find_token
from jobs.serving.fleet import NAME, FleetActor
from jobs.serving.gate import token_digest
from jobs.serving.model_source import ModelSource, find_source
from jobs.serving.replica import Replica

APPLICATION = "alphafuse"
MOST_ONGOING = 256
"""Requests that a replica holds at a time."""
MOST_WAITING = 1024
"""Requests that wait for a replica; any more are refused with status 503."""
ATTEMPTS = 3
"""Starts of a replica after which the service is given up."""


def make_application(source: ModelSource, settings: ServeConfig, token: str) -> serve.Application:
    """Make the application.

    Args:
        source: names the model that is to be served.
        token: what clients must show.
    """
    shared = DeploymentActorConfig(name=NAME, actor_class=FleetActor, actor_options={"num_cpus": 0})
    deployment = serve.deployment(
        name="replica",
        num_replicas=settings.replicas,
        ray_actor_options={"num_cpus": settings.cpus},
        max_ongoing_requests=MOST_ONGOING,
        max_queued_requests=MOST_WAITING,
        max_constructor_retry_count=ATTEMPTS,
        logging_config=LoggingConfig(enable_access_log=False),
        deployment_actors=[shared],
    )(Replica)
    return deployment.bind(source, settings, token_digest(token))


def build(arguments: dict[str, Any]) -> serve.Application:
    """Make the application from plain values, for a configuration file of Ray Serve (docs/serving.md).

    Args:
        arguments: `registry` or `model` as for `find_source`, and settings of the section `serve`.

    Raises:
        ClusterError: no token is given: one that was made here would be known to no client.
        ConfigError: there is nothing to serve.
    """
    settings = dict(arguments)
    source = find_source(settings.pop("model", None), settings.pop("registry", None))
    token = find_token(SERVICE)
    if token is None:
        raise ClusterError(f"there is no token that clients must send: put one into {SERVICE.token_variable}")
    return make_application(source, ServeConfig.model_validate(settings), token)
