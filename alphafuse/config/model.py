"""The section `model`: item encoder and backbone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

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
from alphafuse.config.section import Count, Section


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
