"""Base of the methods whose item vector is an ID embedding that a second loss aligns with the text."""

from __future__ import annotations

from torch import nn

from alphafuse.config.base import Positive
from alphafuse.items.encoders.base import FrozenFeatures
from alphafuse.items.encoders.id import IdEncoder
from alphafuse.items.encoders.text_only import Adapter, EmbeddingsConfig


class AlignedConfig(EmbeddingsConfig):
    """Base of the settings of methods that align the text and the ID of an item by a second loss."""

    alignment_weight: Positive = 0.1
    """Weight of the loss that aligns text and ID, beside the recommendation loss. Its negatives are those of
    `train.loss`; where the recommendation loss looks none up (`softmax`, `shard_local`, `diffusion`), `num_negatives`
    items are drawn for the batch."""


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
