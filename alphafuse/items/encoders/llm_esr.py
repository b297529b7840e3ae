"""LLM-ESR: an ID view and a text view of every item, which attend to one another (Liu et al. 2024)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from alphafuse.items.encoders.base import EncoderContext, FrozenFeatures, ItemEncoder
from alphafuse.items.encoders.settings import LLMESRConfig
from alphafuse.items.encoders.text_only import Adapter


class LLMESREncoder(ItemEncoder):
    """h = [z; A(e)]: ID embeddings that begin as the features, beside the scaled language embeddings e through an
    adapter A of two linear layers (LLM-ESR §3.2).

    The second loss aligns the two views of an item: z_i with A(e_i) against the A(e_j) of the step's negatives (the
    authors' code has a symmetric one, among the items of a batch). The paper's retrieval-augmented self-distillation
    (§3.3), which pulls the state of a user to those of similar users, is left out: it needs an index over the users.
    """

    settings_class = LLMESRConfig
    num_parts = 2

    def __init__(self, embeddings: FrozenFeatures, hidden_dim: int, alignment_weight: float) -> None:
        super().__init__()
        self.frozen = embeddings
        self.trainable_dim = hidden_dim
        self.initialization = "features"
        self.alignment_weight = alignment_weight
        middle = embeddings.dim // 2
        self.adapter = Adapter(nn.Linear(embeddings.dim, middle), nn.Linear(middle, hidden_dim))

    @classmethod
    def build(cls, settings: LLMESRConfig, context: EncoderContext) -> ItemEncoder:
        return cls(context.embeddings(), context.hidden_dim, settings.alignment_weight)

    def forward(self, features: torch.Tensor, trainable: torch.Tensor) -> torch.Tensor:
        return torch.cat([trainable, self.adapter(features)], dim=1)  # [rows, 2 · hidden_dim]

    def alignment_views(self, features: torch.Tensor, trainable: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return trainable, self.adapter(features)

    @classmethod
    def wrap(cls, backbone: nn.Module, hidden_dim: int) -> nn.Module:
        return DualView(backbone, hidden_dim)


class DualView(nn.Module):
    """One backbone on both views of a history, after cross attention between them (LLM-ESR §3.2).

    Different from the paper: attention is causal, since every position may predict, and positions enter in the
    backbone, behind it.
    """

    def __init__(self, backbone: nn.Module, hidden_dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.texts_to_ids = CrossAttention(hidden_dim)
        self.ids_to_texts = CrossAttention(hidden_dim)

    def forward(self, item_vectors: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """Map item vectors [batch, length, 2 · hidden_dim] to the states of all positions, the same shape, or with `at`
        (int64 [batch]) to those at one position of each history, [batch, 2 · hidden_dim]."""
        ids, texts = item_vectors.chunk(2, dim=2)  # [batch, length, hidden_dim] each
        views = torch.cat([self.texts_to_ids(texts, ids), self.ids_to_texts(ids, texts)])
        states = self.backbone(views, None if at is None else at.repeat(2))
        return torch.cat([*states.unflatten(0, (2, item_vectors.shape[0]))], dim=-1)


class CrossAttention(nn.Module):
    """softmax(Q Kᵀ/√d) V with queries of one view, keys and values of the other, with one head (LLM-ESR §3.2)."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.key_value = nn.Linear(hidden_dim, 2 * hidden_dim, bias=False)

    def forward(self, asking: torch.Tensor, answering: torch.Tensor) -> torch.Tensor:
        """Map two views [batch, length, hidden_dim] to one of that shape; position t attends to positions up to t."""
        key, value = self.key_value(answering)[:, None].chunk(2, dim=3)  # [batch, 1, length, hidden_dim] each
        query = self.query(asking)[:, None]
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True).squeeze(1)
