"""Backbones: from the item vectors of a history to one hidden state per position.

Plain torch; a backbone knows nothing of losses, ranks or where item vectors come from.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from alphafuse.config import BackboneConfig, ModelConfig
from alphafuse.config.registry import BACKBONES, ENCODERS
from alphafuse.items.encoders.base import ItemEncoder

MOST_DROPOUT, LEAST_DROPOUT = 0.3, 0.1
FEW_TARGETS, MANY_TARGETS = 15_000, 1_000_000
"""Numbers of training targets up to which, and from which on, the dropout is the most and the least."""


@dataclass(frozen=True)
class BackboneContext:
    """Everything that a backbone may know of the run when it is built.

    Attributes:
        hidden_dim: width of item vectors and hidden states.
        history_length: longest history.
        seed: random seed of the run.
        encoder: class of the items' encoder; a backbone that generates item vectors wraps its reader of histories
            with it.
        open_dropout: dropout where the settings leave it open.
    """

    hidden_dim: int
    history_length: int
    seed: int
    encoder: type[ItemEncoder]
    open_dropout: float

    def dropout(self, given: float | None) -> float:
        """The dropout to train with, where the settings give this one."""
        return self.open_dropout if given is None else given


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


def chosen_dropout(num_targets: int) -> float:
    """The dropout of a backbone whose settings leave it open: `MOST_DROPOUT` up to `FEW_TARGETS` training targets,
    `LEAST_DROPOUT` from `MANY_TARGETS` on, and between them by the logarithm of their number (docs/results.md)."""
    share = math.log(max(1, num_targets) / FEW_TARGETS) / math.log(MANY_TARGETS / FEW_TARGETS)
    return MOST_DROPOUT - (MOST_DROPOUT - LEAST_DROPOUT) * min(1.0, max(0.0, share))


def build_backbone(model: ModelConfig, seed: int, dropout: float = 0.0) -> nn.Module:
    """The backbone that a model's settings choose, wrapped by their encoder to read histories; its weights are drawn
    from torch's generator.

    Args:
        seed: random seed of the run.
        dropout: dropout where the settings leave it open; without meaning for a model that does not train.

    Raises:
        ValueError: the class of a user's own encoder or backbone cannot be imported.
    """
    encoder: type[ItemEncoder] = ENCODERS.find(model.encoder.name)
    context = BackboneContext(model.hidden_dim, model.history_length, seed, encoder, dropout)
    backbone: Backbone = BACKBONES.find(model.backbone.name).build(model.backbone, context)
    return backbone if model.backbone.generates else encoder.wrap(backbone, model.hidden_dim)


def states_after(backbone: nn.Module, item_vectors: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
    """States after the last items of histories: float32 [queries, state_dim]. The backbone computes in the precision of
    its weights.

    Args:
        item_vectors: [queries, length, dim], arbitrary for padding.
        padding: bool [queries, length], True behind the last item of each history.
    """
    last = (~padding).sum(dim=1).clamp(min=1) - 1
    item_vectors = item_vectors.masked_fill(padding[:, :, None], 0.0)
    return backbone(item_vectors.to(next(backbone.parameters()).dtype), last).float()
