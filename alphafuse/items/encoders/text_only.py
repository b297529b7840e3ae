"""Base of the methods without ID embeddings: the text of an item, through dense layers, is its vector."""

from __future__ import annotations

import torch
from torch import nn

from alphafuse.items.encoders.base import FrozenFeatures, ItemEncoder


class Adapter(nn.Sequential):
    """Layers on rows [rows, in], computed in the precision of their weights; the result has that of the rows."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        adapted: torch.Tensor = super().forward(rows.to(next(self.parameters()).dtype))
        return adapted.to(rows.dtype)


class TextOnlyEncoder(ItemEncoder):
    """h = adapter(x); nothing is trained per item.

    Args:
        frozen: x, the features of the text.
        adapter: map from [rows, feature_dim] to [rows, hidden_dim].
    """

    def __init__(self, frozen: FrozenFeatures, adapter: nn.Module) -> None:
        super().__init__()
        self.frozen = frozen
        self.trainable_dim = 0
        self.initialization = "zeros"
        self.adapter = adapter

    def forward(self, features: torch.Tensor, trainable: torch.Tensor) -> torch.Tensor:
        adapted: torch.Tensor = self.adapter(features)
        return adapted
