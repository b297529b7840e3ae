"""The section `model`: item encoder and backbone."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from alphafuse.config.section import Count, Section


class EncoderSection(Section):
    """Base of the encoders' sections."""

    reads: ClassVar[tuple[Literal["features", "embeddings", "nullspace"], ...]] = ("features",)
    """Artefacts of the texts that the method needs."""


class AlphaFuseConfig(EncoderSection):
    """Frozen whitened text features, trainable ID embeddings in their null space (AlphaFuse §3.2)."""

    name: Literal["alphafuse"] = "alphafuse"
    fusion: Literal["add", "replace"] = "add"
    """`add`: IDs are added to the null-space coordinates; `replace`: they take their place."""
    initialization: Literal["zeros", "normal"] = "zeros"
    """Of the ID embeddings; normal has unit variance, as the whitened features."""


class IdConfig(EncoderSection):
    """Trainable ID embeddings alone, no text."""

    reads = ()
    name: Literal["id"] = "id"
    initialization: Literal["zeros", "normal"] = "normal"


def _tag(default: str) -> Discriminator:
    """Chooses a member of a union of sections by its `name`; `default` where the name is not given."""
    return Discriminator(
        lambda value: value.get("name", default) if isinstance(value, dict) else getattr(value, "name", default)
    )


EncoderConfig = Annotated[
    Annotated[AlphaFuseConfig, Tag("alphafuse")] | Annotated[IdConfig, Tag("id")], _tag("alphafuse")
]


class SASRecConfig(Section):
    """Self-attentive sequential recommendation (Kang & McAuley 2018)."""

    name: Literal["sasrec"] = "sasrec"
    num_layers: Count = 1
    num_heads: Count = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class ModelConfig(Section):
    """What is trained."""

    hidden_dim: Count = 128
    """Width of the item vectors and of the backbone; directions kept by the decomposition."""
    history_length: Count = 10
    """Latest items of a user that the model sees."""
    encoder: EncoderConfig = AlphaFuseConfig()
    backbone: SASRecConfig = SASRecConfig()

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.hidden_dim % self.backbone.num_heads:
            raise ValueError(
                f"hidden_dim ({self.hidden_dim}) must be a multiple of num_heads ({self.backbone.num_heads})"
            )
        return self
