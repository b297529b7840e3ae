"""The base class of all sections of the configuration, and types of their values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]


def require_whole(name: str, amount: float) -> None:
    """Check a number of GPUs as the scheduler does: a part of one, or whole ones.

    Raises:
        ValueError: it is neither.
    """
    if amount > 1 and amount != int(amount):
        raise ValueError(f"{name} ({amount:g}) must be a whole number, or less than 1 to share a GPU")


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, attribute docstrings shown as descriptions.

    Defaults are validated, so that a value has one form (1.0, not 1) whether it was given or not: artefacts are named
    by what they are made from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)
