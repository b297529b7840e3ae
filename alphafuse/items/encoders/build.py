"""From the section `model.encoder` to the encoder; the only place that knows all methods."""

from __future__ import annotations

from alphafuse.config import AlphaFuseConfig, Config, IdConfig
from alphafuse.items.encoders.alphafuse import AlphaFuseEncoder
from alphafuse.items.encoders.base import ItemEncoder
from alphafuse.items.encoders.id import IdEncoder
from alphafuse.workspace import Workspace


def build_encoder(config: Config, workspace: Workspace) -> ItemEncoder:
    """The encoder that `model.encoder` names; what it has to know of the catalog is the workspace's."""
    encoder, hidden_dim = config.model.encoder, config.model.hidden_dim
    match encoder:
        case AlphaFuseConfig():
            null_dim = workspace.artifact("nullspace").require().details["null_dim"]
            return AlphaFuseEncoder(hidden_dim, null_dim, encoder.fusion, encoder.initialization)
        case IdConfig():
            return IdEncoder(hidden_dim, encoder.initialization)
