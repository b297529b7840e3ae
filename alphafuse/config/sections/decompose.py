"""The section `decompose`: how the embedding space is split into row space and null space."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alphafuse.config.base import OPERATIONAL, Count, Positive, Section
from alphafuse.config.sections.resources import TaskResources


class DecomposeConfig(Section):
    """Split of the embedding space into row space and null space (AlphaFuse §3.1)."""

    method: Literal["auto", "gram", "randomized"] = "auto"
    """`gram`: exact, one pass; `randomized`: range finder with `power_passes`, no d×d matrix; `auto`:
    `gram` up to 4 · (`power_passes` + 2) · (`directions` + `oversampling`) dimensions, above which it is slower."""
    scale: Positive = 40.0
    """Factor on the unit-norm embeddings; eigenvalues grow with its square."""
    directions: Count | None = None
    """Number of leading directions that are kept; null: `model.hidden_dim`."""
    null_dim: Count | None = None
    """Number of null-space directions among the kept ones; null: all but 32, and half of fewer than 64, unless one of
    the next two settings cuts."""
    null_threshold: Positive | None = None
    """Largest eigenvalue of the null space, instead of `null_dim`."""
    row_energy: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the kept variance that the row space, as small as possible, holds at least, instead of `null_dim`."""
    standardize: bool = True
    """Whiten: divide each direction by the root of its eigenvalue."""
    popularity_weighted: bool = False
    """Weight mean and covariance by the items' training interactions."""
    power_passes: Annotated[int, Field(ge=0)] = 2
    """Passes over the data that sharpen the randomized range."""
    oversampling: Count = 16
    """Extra directions of the randomized range finder."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of the randomized range finder; null: the run's `seed`."""
    resources: Annotated[TaskResources, OPERATIONAL] = TaskResources()

    @model_validator(mode="after")
    def _check(self) -> DecomposeConfig:
        given = [name for name in ("null_dim", "null_threshold", "row_energy") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"only one of null_dim, null_threshold, row_energy can cut (set: {', '.join(given)})")
        return self
