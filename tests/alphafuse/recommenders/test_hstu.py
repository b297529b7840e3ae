"""HSTU, a block and the whole, against their formulas in float64."""

from __future__ import annotations

import torch
from support.definitions.attention_formulas import assert_equal_with_gradients, blocks_and_norm
from torch.nn import functional

from alphafuse.recommenders.hstu import HSTU, HSTUBlock


def _vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()


def _block(block: HSTUBlock, x: torch.Tensor, num_heads: int) -> torch.Tensor:
    """A block on one history [length, width], written out (Zhai et al. 2024, eq. 1 to 3)."""
    length, width = x.shape
    normed = functional.layer_norm(x, (width,), block.input_norm.weight, block.input_norm.bias)
    projected = functional.silu(normed @ block.projection.weight.T + block.projection.bias)
    gate, value, query, key = projected.split(width, dim=1)
    heads = []
    for head in range(num_heads):
        columns = slice(head * width // num_heads, (head + 1) * width // num_heads)
        attended = []
        for t in range(length):
            scores = torch.stack(
                [query[t, columns] @ key[s, columns] + block.distance_bias[head, t - s] for s in range(t + 1)]
            )
            attended.append((scores * torch.sigmoid(scores)) @ value[: t + 1, columns])
        heads.append(torch.stack(attended))
    attended_to = functional.layer_norm(
        torch.cat(heads, dim=1), (width,), block.attention_norm.weight, block.attention_norm.bias
    )
    return x + (attended_to * gate) @ block.output.weight.T + block.output.bias


def test_block_equals_its_formula() -> None:
    torch.manual_seed(1)
    block = HSTUBlock(hidden_dim=6, history_length=5, num_heads=2, dropout=0.0).double()
    x = _vectors(1, 4, 6)
    torch.testing.assert_close(block(x)[0], _block(block, x[0], 2))


def test_states_and_gradients_are_those_of_blocks_and_a_norm() -> None:
    torch.manual_seed(1)
    model, x = HSTU(6, 5, num_layers=2, num_heads=2, dropout=0.0).double(), _vectors(3, 4, 6).requires_grad_()
    expected = blocks_and_norm(model, x, _block)
    assert_equal_with_gradients(model(x), expected, [x, *model.parameters()])
