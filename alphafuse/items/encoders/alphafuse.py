"""AlphaFuse: frozen text features, with ID embeddings learnt in the null space alone (AlphaFuse §3.2)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import model_validator

from alphafuse.config import Config, EncoderConfig
from alphafuse.config.model import Artifact
from alphafuse.errors import ConfigError
from alphafuse.items.encoders.alphafuse_euclidean import EuclideanAlphaFuseEncoder
from alphafuse.items.encoders.base import EncoderContext, FrozenFeatures, ItemEncoder
from alphafuse.items.encoders.llminit import LLMInitEncoder


class AlphaFuseConfig(EncoderConfig):
    """Frozen whitened text features, trainable ID embeddings in their null space (AlphaFuse §3.2)."""

    name: Literal["alphafuse"] = "alphafuse"
    fusion: Literal["add", "replace"] = "add"
    """`add`: IDs are added to the null-space coordinates; `replace`: they take their place."""
    initialization: Literal["zeros", "normal"] = "zeros"
    """Initial values of the ID embeddings; `normal` has unit variance, as the whitened features. Items without a text
    begin with `normal` in any case."""
    id_space: Literal["singular", "euclidean"] = "singular"
    """Space in which IDs are learnt. `singular`: they are coordinates of the null space; `euclidean`: they lie in the
    space of the language embeddings and are projected onto the null space (an ablation of the paper)."""
    injection_space: Literal["singular", "euclidean"] = "singular"
    """Space in which text and ID are fused. `singular`: the kept directions; `euclidean`: the space of the language
    embeddings, neither whitened nor clipped, which must be as wide as the model (an ablation of the paper)."""
    frozen: bool = True
    """Keep the text features as they are; false: train them too (an ablation of the paper)."""

    @property
    def euclidean(self) -> bool:
        """Tell whether item vectors are computed with the basis of the null space."""
        return "euclidean" in (self.id_space, self.injection_space)

    @property
    def reads(self) -> tuple[Artifact, ...]:
        text: Artifact = "embeddings" if self.injection_space == "euclidean" else "features"
        return (text, "nullspace") if self.euclidean else (text,)

    @property
    def width_of_features(self) -> bool:
        return self.injection_space == "singular"

    @model_validator(mode="after")
    def _check(self) -> AlphaFuseConfig:
        if not self.frozen and (self.euclidean or self.fusion != "add" or self.initialization != "zeros"):
            raise ValueError(
                "frozen: false trains the features themselves, from where they are: it goes with fusion: add, "
                "initialization: zeros and both spaces singular"
            )
        return self

    def check(self, config: Config) -> None:
        if self.euclidean and config.train.deepspeed.bf16:
            raise ValueError(
                "train.deepspeed.bf16 would round the basis of the null space, which a euclidean id_space or "
                "injection_space projects with; set it to false"
            )

    def check_embeddings(self, hidden_dim: int, embedding_dim: int) -> None:
        if self.injection_space == "euclidean" and hidden_dim != embedding_dim:
            raise ConfigError(
                f"model.encoder.injection_space: euclidean makes item vectors as wide as the language embeddings, so "
                f"model.hidden_dim ({hidden_dim}) must be {embedding_dim}"
            )


class AlphaFuseEncoder(ItemEncoder):
    """h = x + [0; z] (`add`) or h = [x of the row space; z] (`replace`).

    The features x are ordered by descending eigenvalue, so the null space is their last `null_dim` columns.
    The map has no weights of its own.

    Args:
        id_basis: [embedding_dim, null_dim], U_null, to learn IDs in the space of the language embeddings: their
            projections z U_null then take the place of z (the ablation "Euclidean ID, singular injection").
    """

    settings_class = AlphaFuseConfig
    id_basis: torch.Tensor | None

    def __init__(
        self,
        hidden_dim: int,
        null_dim: int,
        fusion: Literal["add", "replace"],
        initialization: Literal["zeros", "normal"],
        id_basis: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.trainable_dim = null_dim if id_basis is None else len(id_basis)
        self.initialization = initialization
        self.register_buffer("id_basis", id_basis, persistent=False)
        self._fusion = fusion
        self._row_dim = hidden_dim - null_dim
        # `replace` never reads the null-space features, so they are neither stored nor sent.
        self.frozen = FrozenFeatures("features", slice(0, hidden_dim if fusion == "add" else self._row_dim))

    @classmethod
    def build(cls, settings: AlphaFuseConfig, context: EncoderContext) -> ItemEncoder:
        """Build the method, or one of its ablations."""
        if not settings.frozen:
            return LLMInitEncoder.build(settings, context)
        if settings.injection_space == "euclidean":
            return EuclideanAlphaFuseEncoder.build(settings, context)
        basis = context.null_basis() if settings.id_space == "euclidean" else None
        return cls(context.hidden_dim, context.null_dim(), settings.fusion, settings.initialization, basis)

    def forward(self, features: torch.Tensor, trainable: torch.Tensor) -> torch.Tensor:
        ids = trainable if self.id_basis is None else trainable @ self.id_basis  # [rows, null_dim]
        if self._fusion == "replace":
            return torch.cat([features, ids], dim=1)
        row_space, null_space = features.tensor_split([self._row_dim], dim=1)
        return torch.cat([row_space, null_space + ids], dim=1)
