"""Base of the methods whose item vector is an ID embedding that a second loss aligns with the text."""

from __future__ import annotations

from torch import nn

from alphafuse.items.encoders.base import FrozenFeatures
from alphafuse.items.encoders.id import IdEncoder
from alphafuse.items.encoders.text_only import Adapter


class AlignedIdEncoder(IdEncoder):
    """h = z; the text e is read by the alignment alone.

    Args:
        embeddings: e, the language embeddings.
        alignment_weight: weight of the loss between the `alignment_views`.
    """

    def __init__(self, embeddings: FrozenFeatures, hidden_dim: int, alignment_weight: float) -> None:
        super().__init__(hidden_dim, "normal")
        self.frozen = embeddings
        self.alignment_weight = alignment_weight


def two_layers(input_dim: int, output_dim: int) -> Adapter:
    """The perceptron of RLMRec between text and behaviour, with a hidden layer half way between their widths."""
    middle = (input_dim + output_dim) // 2
    return Adapter(nn.Linear(input_dim, middle), nn.LeakyReLU(), nn.Linear(middle, output_dim))
