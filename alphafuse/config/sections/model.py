"""The section `model`: item encoder and backbone, and the base classes of their settings.

The settings of the encoders stand in `alphafuse/items/encoders/settings.py`, those of the backbones in
`alphafuse/recommenders/settings.py`; `registry.py` lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, SerializeAsAny

from alphafuse.config.base import Count, Section
from alphafuse.config.registry import BACKBONES, ENCODERS

if TYPE_CHECKING:
    from alphafuse.config.root import Config

Artifact = Literal["features", "embeddings", "nullspace"]


class EncoderConfig(Section):
    """Base of the settings of an item encoder."""

    name: str
    """Name or import path that chooses the encoder."""

    @property
    def reads(self) -> tuple[Artifact, ...]:
        """Artefacts made from texts that the encoder needs. Only the stages that make them run, and the fingerprint of
        the trained model covers them."""
        return ("features",)

    @property
    def width_of_features(self) -> bool:
        """Tell whether item vectors are made of the features as they are, or begin as the features, which must then be
        as wide as the model."""
        return False

    def check(self, config: Config) -> None:
        """Check that the other sections fit the encoder.

        Raises:
            ValueError: one of them does not fit.
        """

    def check_embeddings(self, hidden_dim: int, embedding_dim: int) -> None:
        """Check the width of the model against that of the language embeddings, which no setting names.

        Raises:
            ConfigError: `model.hidden_dim` does not fit.
        """


class BackboneConfig(Section):
    """Base of the settings of a backbone."""

    name: str
    """Name or import path that chooses the backbone."""

    @property
    def generates(self) -> bool:
        """Tell whether the backbone generates item vectors, which the loss `diffusion` trains."""
        return False

    def check(self, config: Config) -> None:
        """Check that the other sections fit the backbone.

        Raises:
            ValueError: one of them does not fit.
        """


class ModelConfig(Section):
    """The model: item encoder and backbone."""

    hidden_dim: Count = 192
    """Width of the item vectors and of the backbone; directions kept by the decomposition."""
    history_length: Count = 10
    """Number of a user's latest items that the model sees."""
    # Defaults are made only when they are needed, since their classes import this package.
    encoder: Annotated[SerializeAsAny[EncoderConfig], ENCODERS] = Field(default_factory=ENCODERS.default_settings)
    backbone: Annotated[SerializeAsAny[BackboneConfig], BACKBONES] = Field(default_factory=BACKBONES.default_settings)
