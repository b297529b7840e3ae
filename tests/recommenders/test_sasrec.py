"""SASRec: the block against its formula in float64."""

from __future__ import annotations

import torch
from torch.nn import functional

from alphafuse.recommenders.sasrec import SASRecBlock


def _vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_block_equals_its_formula() -> None:
    torch.manual_seed(1)
    block = SASRecBlock(hidden_dim=6, num_heads=2, dropout=0.0).double()
    x = _vectors(1, 4, 6).double()
    normed = functional.layer_norm(x, (6,), block.attention_norm.weight, block.attention_norm.bias)[0]
    query, key, value = (normed @ block.query_key_value.weight.T).split(6, dim=1)
    attended = torch.zeros(4, 6).double()
    for head in (slice(0, 3), slice(3, 6)):
        for t in range(4):
            weights = torch.softmax(key[: t + 1, head] @ query[t, head] / 3**0.5, dim=0)
            attended[t, head] = weights @ value[: t + 1, head]
    y = x[0] + attended @ block.output.weight.T + block.output.bias
    normed = functional.layer_norm(y, (6,), block.feed_forward_norm.weight, block.feed_forward_norm.bias)
    first, last = block.feed_forward[0], block.feed_forward[3]
    expected = y + torch.relu(normed @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(block(x)[0], expected)
