"""Backbones: from the item vectors of a history to one hidden state per position.

Plain torch; a backbone knows nothing of losses, ranks or where item vectors come from.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from alphafuse.config import BackboneConfig, Config
from alphafuse.config.registry import BACKBONES
from alphafuse.items.encoders.base import ItemEncoder


@dataclass(frozen=True)
class BackboneContext:
    """Everything that a backbone may know of the run when it is built.

    Attributes:
        hidden_dim: width of item vectors and hidden states.
        history_length: longest history.
        seed: random seed of the run.
        encoder: encoder of the items; a backbone that generates item vectors wraps its reader of histories with it.
    """

    hidden_dim: int
    history_length: int
    seed: int
    encoder: ItemEncoder


class Backbone(nn.Module):
    """Base of the backbones.

    Attributes:
        settings_class: settings of the section `model.backbone` that chooses this backbone.
    """

    settings_class: ClassVar[type[BackboneConfig]]

    @classmethod
    @abstractmethod
    def build(cls, settings: Any, context: BackboneContext) -> Backbone:
        """Build the backbone from settings of `settings_class`."""
        raise NotImplementedError

    @abstractmethod
    def forward(self, item_vectors: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """Map item vectors [batch, length, hidden_dim] to the hidden states of all positions, the same shape.

        The state at position t has seen the items up to and including t. Histories are padded at the end, with zeros.

        Args:
            at: int64 [batch]; only the state at this position of each history is wanted, [batch, hidden_dim].
        """


def build_backbone(config: Config, encoder: ItemEncoder) -> nn.Module:
    """The backbone that `model.backbone` chooses, whose reader of histories the encoder wraps; its weights are drawn
    from torch's generator."""
    settings = config.model.backbone
    context = BackboneContext(config.model.hidden_dim, config.model.history_length, config.seed, encoder)
    backbone: Backbone = BACKBONES.find(settings.name).build(settings, context)
    return backbone if settings.generates else encoder.wrap(backbone)
