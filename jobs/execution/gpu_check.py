"""Checks that torch finds a GPU on each machine that promises one, before a run begins."""

from __future__ import annotations

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from alphafuse.config.sections.resources import Resources
from alphafuse.errors import ResourceError
from jobs.execution.placement import SLIVER

ANSWER_SECONDS = 60.0
"""Time for machines to answer; those whose GPUs are busy with other work do not, and are taken to have working ones."""


def require_working_gpus(key: str, resources: Resources) -> None:
    """Check the machines that a stage's workers may run on and that promise GPUs: as Ray counts them, which believes
    what a machine is started with.

    Args:
        key: key of the resources in the configuration, for messages.

    Raises:
        ResourceError: torch finds no GPU on one of the machines.
    """
    if not resources.gpus_of_each:
        return
    asked = {
        _torch_without_gpu.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(): node["NodeManagerHostname"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("GPU", 0) and node["Resources"].get(resources.pool or "GPU", 0)
    }
    answered, busy = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS) if asked else ([], [])
    for answer in busy:
        ray.cancel(answer)
    lacking = {asked[answer]: build for answer in answered if (build := ray.get(answer)) is not None}
    if lacking:
        listed = ", ".join(f"{machine} (torch {build})" for machine, build in sorted(lacking.items()))
        raise ResourceError(
            f"{key}.gpus asks for GPUs, and torch finds none on machines that promise them: {listed}. Either this "
            "build of torch is one for CPUs (the image for GPUs is built with DEVICE=gpu), or the machine's driver is "
            "missing, too old for it, or not passed into the container (`nvidia-smi` tells). To compute on CPUs, set "
            f"{key}.gpus=0"
        )


@ray.remote(num_cpus=0, num_gpus=SLIVER)
def _torch_without_gpu() -> str | None:
    """The version of a torch that finds no GPU on this machine; None where it finds one."""
    import torch

    return None if torch.cuda.is_available() else torch.__version__
