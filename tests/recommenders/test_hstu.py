"""HSTU: the block against its formula in float64."""

from __future__ import annotations

import torch
from torch.nn import functional

from alphafuse.recommenders.hstu import HSTUBlock


def _vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_block_equals_its_formula() -> None:
    torch.manual_seed(1)
    block = HSTUBlock(hidden_dim=6, history_length=5, num_heads=2, dropout=0.0).double()
    x = _vectors(1, 4, 6).double()
    normed = functional.layer_norm(x[0], (6,), block.input_norm.weight, block.input_norm.bias)
    projected = functional.silu(normed @ block.projection.weight.T + block.projection.bias)
    gate, value, query, key = projected.split(6, dim=1)
    attended = torch.zeros(4, 6).double()
    for head, columns in enumerate((slice(0, 3), slice(3, 6))):
        for t in range(4):
            for s in range(t + 1):
                score = query[t, columns] @ key[s, columns] + block.distance_bias[head, t - s]
                attended[t, columns] += score * torch.sigmoid(score) * value[s, columns]
    attended = functional.layer_norm(attended, (6,), block.attention_norm.weight, block.attention_norm.bias)
    expected = x[0] + (attended * gate) @ block.output.weight.T + block.output.bias
    torch.testing.assert_close(block(x)[0], expected)
