"""From the section `model.encoder` to the encoder; the only place that knows all methods."""

from __future__ import annotations

import torch

from alphafuse.config import (
    AlphaFuseConfig,
    Config,
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
from alphafuse.errors import ConfigError
from alphafuse.items.encoders.alphafuse import AlphaFuseEncoder
from alphafuse.items.encoders.alphafuse_euclidean import EuclideanAlphaFuseEncoder
from alphafuse.items.encoders.base import FrozenFeatures, ItemEncoder
from alphafuse.items.encoders.id import IdEncoder
from alphafuse.items.encoders.idreamrec import IDreamRecEncoder
from alphafuse.items.encoders.llm_esr import LLMESREncoder
from alphafuse.items.encoders.llminit import LLMInitEncoder
from alphafuse.items.encoders.morec import MoRecEncoder
from alphafuse.items.encoders.rlmrec_con import RLMRecContrastiveEncoder
from alphafuse.items.encoders.rlmrec_gen import RLMRecGenerativeEncoder
from alphafuse.items.encoders.unisrec import UniSRecEncoder
from alphafuse.items.encoders.whitenrec import WhitenRecEncoder
from alphafuse.nullspace.decomposition import load_nullspace
from alphafuse.storage.workspace import Workspace


def build_encoder(config: Config, workspace: Workspace) -> ItemEncoder:
    """The encoder that `model.encoder` names; what it has to know of the catalog is the workspace's.

    Raises:
        ConfigError: `model.hidden_dim` is not the dimension that the method needs.
    """
    encoder, hidden_dim = config.model.encoder, config.model.hidden_dim
    if isinstance(encoder, AlphaFuseConfig) and encoder.euclidean:
        require_width(config, workspace.artifact("nullspace").require().details["embedding_dim"])
    match encoder:
        case AlphaFuseConfig():
            return _build_alphafuse(encoder, hidden_dim, workspace)
        case IdConfig():
            return IdEncoder(hidden_dim, encoder.initialization)
        case MoRecConfig():
            return MoRecEncoder(_embeddings(config, workspace), hidden_dim)
        case WhitenRecConfig():
            return WhitenRecEncoder(config.directions, hidden_dim)
        case IDreamRecConfig():
            return IDreamRecEncoder(hidden_dim)
        case UniSRecConfig():
            return UniSRecEncoder(_embeddings(config, workspace), hidden_dim, encoder.num_experts, encoder.dropout)
        case LLMInitConfig():
            return LLMInitEncoder(hidden_dim)
        case RLMRecContrastiveConfig():
            return RLMRecContrastiveEncoder(_embeddings(config, workspace), hidden_dim, encoder.alignment_weight)
        case RLMRecGenerativeConfig():
            embeddings, weight = _embeddings(config, workspace), encoder.alignment_weight
            return RLMRecGenerativeEncoder(embeddings, hidden_dim, weight, encoder.mask_ratio)
        case LLMESRConfig():
            return LLMESREncoder(_embeddings(config, workspace), hidden_dim, encoder.alignment_weight)


def require_width(config: Config, embedding_dim: int) -> None:
    """Check what the encoder wants of the language embeddings' dimension, which no configuration tells.

    Raises:
        ConfigError: `model.hidden_dim` must be that dimension, and is another.
    """
    encoder, hidden_dim = config.model.encoder, config.model.hidden_dim
    if isinstance(encoder, AlphaFuseConfig) and encoder.injection_space == "euclidean" and hidden_dim != embedding_dim:
        raise ConfigError(
            f"model.encoder.injection_space: euclidean makes item vectors as wide as the language embeddings, so "
            f"model.hidden_dim ({hidden_dim}) must be {embedding_dim}"
        )


def _build_alphafuse(encoder: AlphaFuseConfig, hidden_dim: int, workspace: Workspace) -> ItemEncoder:
    """The method, or one of its ablations."""
    if not encoder.frozen:
        return LLMInitEncoder(hidden_dim)
    if not encoder.euclidean:
        null_dim = workspace.artifact("nullspace").require().details["null_dim"]
        return AlphaFuseEncoder(hidden_dim, null_dim, encoder.fusion, encoder.initialization)
    nullspace = load_nullspace(workspace)
    basis = torch.from_numpy(nullspace.basis[:, nullspace.row_dim :]).float()  # [embedding_dim, null_dim]
    if encoder.injection_space == "singular":
        return AlphaFuseEncoder(hidden_dim, nullspace.null_dim, encoder.fusion, encoder.initialization, basis)
    mean = torch.from_numpy(nullspace.mean).float()
    return EuclideanAlphaFuseEncoder(
        basis, mean, nullspace.scale, encoder.id_space, encoder.fusion, encoder.initialization
    )


def _embeddings(config: Config, workspace: Workspace) -> FrozenFeatures:
    """All of the language embeddings, scaled."""
    dim = workspace.artifact("embeddings").require().details["dim"]
    return FrozenFeatures("embeddings", slice(0, dim), config.decompose.scale)
