"""LiGR, a block and the whole, against their formulas in float64."""

from __future__ import annotations

import torch
from support.definitions.attention_formulas import assert_equal_with_gradients, blocks_and_norm
from torch import nn
from torch.nn import functional

from alphafuse.recommenders.ligr import LiGR, LiGRBlock


def _vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()


def _linear(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return x @ layer.weight.T + layer.bias


def _block(block: LiGRBlock, x: torch.Tensor, num_heads: int) -> torch.Tensor:
    """A block on one history [length, width], written out (Borisyuk et al. 2025, §3, with the norms in front)."""
    length, width = x.shape
    normed = functional.layer_norm(x, (width,), block.attention_norm.weight, block.attention_norm.bias)
    query, key, value = (normed @ block.query_key_value.weight.T).split(width, dim=1)
    heads = []
    for head in range(num_heads):
        columns = slice(head * width // num_heads, (head + 1) * width // num_heads)
        scores = query[:, columns] @ key[:, columns].T / (width / num_heads) ** 0.5
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        heads.append(torch.softmax(scores.masked_fill(later, -torch.inf), dim=1) @ value[:, columns])
    y = x + torch.sigmoid(_linear(block.attention_gate, x)) * _linear(block.output, torch.cat(heads, dim=1))
    normed = functional.layer_norm(y, (width,), block.feed_forward_norm.weight, block.feed_forward_norm.bias)
    gate, value = _linear(block.feed_forward.inner, normed).tensor_split(2, dim=1)
    fed = _linear(block.feed_forward.outer, gate * torch.sigmoid(gate) * value)
    return y + torch.sigmoid(_linear(block.feed_forward_gate, y)) * fed


def test_block_equals_its_formula() -> None:
    torch.manual_seed(1)
    block = LiGRBlock(hidden_dim=6, num_heads=2, dropout=0.0).double()
    x = _vectors(1, 4, 6)
    torch.testing.assert_close(block(x)[0], _block(block, x[0], 2))


def test_states_and_gradients_are_those_of_positions_blocks_and_a_norm() -> None:
    torch.manual_seed(1)
    model, x = LiGR(6, 5, num_layers=2, num_heads=2, dropout=0.0).double(), _vectors(3, 4, 6).requires_grad_()
    expected = blocks_and_norm(model, x + model.positions[:4], _block)
    assert_equal_with_gradients(model(x), expected, [x, *model.parameters()])
