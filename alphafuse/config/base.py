"""The base class of all sections of the configuration, and types of their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]


OPERATIONAL = "operational"
"""Mark of a setting that changes where or how fast a stage runs, and not what it makes: no fingerprint covers it."""


@dataclass(frozen=True)
class Added:
    """Mark of a setting that came after results had been stored without it: the value that they were made with is left
    out of fingerprints, so that they are still found.

    Attributes:
        before: that value.
    """

    before: Any = None


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, attribute docstrings shown as descriptions.

    Defaults are validated, so that a value has one form (1.0, not 1) whether it was given or not: artefacts are named
    by what they are made from.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    def result_settings(self) -> dict[str, Any]:
        """The settings that results depend on, as plain values: all but those that are marked `OPERATIONAL`, and those
        marked `Added` that have the value of before."""
        settings = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            before = [mark.before for mark in field.metadata if isinstance(mark, Added)]
            if OPERATIONAL in field.metadata or value in before:
                del settings[name]
            elif isinstance(value, Section):
                settings[name] = value.result_settings()
        return settings
