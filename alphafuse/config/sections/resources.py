"""The section `resources`, one wherever a stage uses machines: how many workers, what each takes, and where they run.

Resources change where and how fast a stage runs, and not what it makes.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field, model_validator

from alphafuse.config.base import Count, Fraction, NonNegative, Positive, Section

CPUS_BESIDE_GPU = 8
"""CPUs that a worker takes by default for each of its GPUs, which would wait for tokens or batches from fewer."""


class Resources(Section):
    """Machines for tasks that run side by side."""

    workers: Count | None = None
    """Tasks that run at a time; null: as many as the cluster has room for."""
    cpus: Positive = 1
    """CPUs of each worker."""
    pool: str | None = None
    """Custom resource of the machines that the workers run on; null: any machines that have room."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the workers' processes."""

    @model_validator(mode="before")
    @classmethod
    def _take_cpus_beside_gpus(cls, values: Any) -> Any:
        gpus = values.get("gpus", 0) if isinstance(values, dict) and "cpus" not in values else 0
        if not isinstance(gpus, int | float) or not 0 < gpus < math.inf:
            return values
        return {**values, "cpus": max(1.0, CPUS_BESIDE_GPU * gpus)}

    @property
    def gpus_of_each(self) -> float:
        """GPUs of each worker; 0 where the stage has no such setting."""
        return float(getattr(self, "gpus", 0))

    @property
    def fewest_workers(self) -> int:
        """Fewest workers that a stage starts with."""
        return self.workers or 1


class TaskResources(Resources):
    """Machines for the tasks of the decomposition, which may compute on GPUs."""

    cpus: Positive = 1
    """CPUs of each worker; with a GPU, where nothing else is set, 8 (of a fraction as much, and 1 at least)."""
    gpus: Fraction = 0
    """GPUs of each worker: 1, or a fraction of one, which several workers then share; 0 computes on CPUs. They compute
    mean and covariance; eigenvectors and features are computed on CPUs."""

    @property
    def without_gpus(self) -> TaskResources:
        """Resources of a task beside these workers that computes on the CPUs of one."""
        return self.model_copy(update={"gpus": 0.0})


class EngineResources(Resources):
    """Machines for embedding engines."""

    workers: Count = 1
    """Engines that run side by side."""
    cpus: NonNegative = 1
    """CPUs of each engine; with GPUs, where nothing else is set, 8 for each GPU (and 1 at least)."""
    gpus: NonNegative = 0
    """GPUs (or a fraction of one) of each engine; 0 runs on the CPU."""

    @model_validator(mode="after")
    def _check_gpus(self) -> EngineResources:
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus ({self.gpus:g}) must be a whole number, or less than 1 to share a GPU")
        return self


class RankResources(Resources):
    """Machines for data-parallel ranks: those of the training, and of all stages that read the trained model."""

    workers: Count = 1
    """Ranks; each owns a range of the item table's rows."""
    cpus: Positive = 1
    """CPUs of each rank; with a GPU, where nothing else is set, 8 (of a fraction as much, and 1 at least)."""
    min_workers: Count | None = None
    """Fewest ranks to go on with where the cluster has no room for `workers`, because a machine was lost or has yet to
    come; when there is room again, training continues with more. The batches are the same for any number of ranks.
    null: always `workers`."""
    gpus: Annotated[float, Field(ge=0, le=1)] = 0
    """GPUs of each rank: 1, or 0 to train on CPUs; a single rank may take a fraction and leave the rest to others."""
    max_restarts: Annotated[int, Field(ge=0)] = 3
    """Most restarts in a row, without progress in between, after a rank died. All ranks are started again and continue
    from the latest checkpoint."""
    timeout: Count = 1800
    """Seconds that ranks wait for one another, or for the network, in a collective before they count as failed and are
    started again."""

    @property
    def fewest_workers(self) -> int:
        return self.workers if self.min_workers is None else self.min_workers

    @model_validator(mode="after")
    def _check_ranks(self) -> RankResources:
        if 0 < self.gpus < 1 and self.workers > 1:
            raise ValueError(
                f"gpus ({self.gpus:g}): ranks cannot share a GPU, NCCL refuses it; give each a whole one, or train "
                "with one worker"
            )
        if self.fewest_workers > self.workers:
            raise ValueError(f"min_workers ({self.min_workers}) must not exceed workers ({self.workers})")
        return self
