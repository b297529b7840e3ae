"""GPUs that a machine promises and torch does not find, on a machine that joins with a GPU that is none."""

from __future__ import annotations

import re

import pytest
import torch
from ray.cluster_utils import Cluster

from alphafuse.config.sections.resources import EngineResources, RankResources
from alphafuse.errors import ResourceError
from jobs.execution.gpu_check import require_working_gpus


@pytest.mark.engine
@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU on every machine that this one plays")
def test_a_machine_that_promises_a_gpu_and_has_none_is_named(ray_cluster: Cluster) -> None:
    promising = ray_cluster.add_node(num_cpus=1, num_gpus=1, resources={"gpu-train": 1})
    try:
        build = re.escape(f"(torch {torch.__version__})")
        with pytest.raises(
            ResourceError, match=rf"train.resources.gpus asks for GPUs, and torch finds none .* {build}"
        ):
            require_working_gpus("train.resources", RankResources(gpus=1))
        with pytest.raises(ResourceError, match=r"embed.resources.gpus=0"):
            require_working_gpus("embed.resources", EngineResources(gpus=0.5, pool="gpu-train"))
        require_working_gpus("train.resources", RankResources(gpus=1, pool="gpu-elsewhere"))
        require_working_gpus("train.resources", RankResources())
    finally:
        ray_cluster.remove_node(promising)
