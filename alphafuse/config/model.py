"""The section `model`: item encoder and backbone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Tag, model_validator

from alphafuse.config.backbones import DreamRecConfig, GRU4RecConfig, HSTUConfig, SASRecConfig
from alphafuse.config.base import Count, Section
from alphafuse.config.encoders import (
    AlphaFuseConfig,
    IdConfig,
    IDreamRecConfig,
    LLMESRConfig,
    LLMInitConfig,
    MoRecConfig,
    RLMRecContrastiveConfig,
    RLMRecGenerativeConfig,
    UniSRecConfig,
    WhitenRecConfig,
)


def _tag(default: str) -> Discriminator:
    """Chooses a member of a union of sections by its `name`; `default` where the name is not given."""
    return Discriminator(
        lambda value: value.get("name", default) if isinstance(value, dict) else getattr(value, "name", default)
    )


EncoderConfig = Annotated[
    Annotated[AlphaFuseConfig, Tag("alphafuse")]
    | Annotated[IdConfig, Tag("id")]
    | Annotated[MoRecConfig, Tag("morec")]
    | Annotated[WhitenRecConfig, Tag("whitenrec")]
    | Annotated[IDreamRecConfig, Tag("idreamrec")]
    | Annotated[UniSRecConfig, Tag("unisrec")]
    | Annotated[LLMInitConfig, Tag("llminit")]
    | Annotated[RLMRecContrastiveConfig, Tag("rlmrec_con")]
    | Annotated[RLMRecGenerativeConfig, Tag("rlmrec_gen")]
    | Annotated[LLMESRConfig, Tag("llm_esr")],
    _tag("alphafuse"),
]


BackboneConfig = Annotated[
    Annotated[SASRecConfig, Tag("sasrec")]
    | Annotated[GRU4RecConfig, Tag("gru4rec")]
    | Annotated[HSTUConfig, Tag("hstu")]
    | Annotated[DreamRecConfig, Tag("dreamrec")],
    _tag("sasrec"),
]


class ModelConfig(Section):
    """The model: item encoder and backbone."""

    hidden_dim: Count = 128
    """Width of the item vectors and of the backbone; directions kept by the decomposition."""
    history_length: Count = 10
    """Latest items of a user that the model sees."""
    encoder: EncoderConfig = AlphaFuseConfig()
    backbone: BackboneConfig = SASRecConfig()

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        num_heads = 1 if isinstance(self.backbone, GRU4RecConfig) else self.backbone.num_heads
        if self.hidden_dim % num_heads:
            raise ValueError(f"hidden_dim ({self.hidden_dim}) must be a multiple of num_heads ({num_heads})")
        return self
