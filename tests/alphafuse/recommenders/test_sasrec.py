"""SASRec, a block and the whole, against their formulas in float64."""

from __future__ import annotations

import torch
from support.definitions.attention_formulas import assert_equal_with_gradients, blocks_and_norm
from torch.nn import functional

from alphafuse.recommenders.sasrec import SASRec, SASRecBlock


def _vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()


def _block(block: SASRecBlock, x: torch.Tensor, num_heads: int) -> torch.Tensor:
    """A block on one history [length, width], written out (Kang & McAuley 2018, §3, with the norms in front)."""
    length, width = x.shape
    normed = functional.layer_norm(x, (width,), block.attention_norm.weight, block.attention_norm.bias)
    query, key, value = (normed @ block.query_key_value.weight.T).split(width, dim=1)
    heads = []
    for head in range(num_heads):
        columns = slice(head * width // num_heads, (head + 1) * width // num_heads)
        attended = []
        for t in range(length):
            weights = torch.softmax(key[: t + 1, columns] @ query[t, columns] / (width / num_heads) ** 0.5, dim=0)
            attended.append(weights @ value[: t + 1, columns])
        heads.append(torch.stack(attended))
    y = x + torch.cat(heads, dim=1) @ block.output.weight.T + block.output.bias
    normed = functional.layer_norm(y, (width,), block.feed_forward_norm.weight, block.feed_forward_norm.bias)
    first, last = block.feed_forward[0], block.feed_forward[3]
    return y + torch.relu(normed @ first.weight.T + first.bias) @ last.weight.T + last.bias


def test_block_equals_its_formula() -> None:
    torch.manual_seed(1)
    block = SASRecBlock(hidden_dim=6, num_heads=2, dropout=0.0).double()
    x = _vectors(1, 4, 6)
    torch.testing.assert_close(block(x)[0], _block(block, x[0], 2))


def test_states_and_gradients_are_those_of_positions_blocks_and_a_norm() -> None:
    torch.manual_seed(1)
    model, x = SASRec(6, 5, num_layers=2, num_heads=2, dropout=0.0).double(), _vectors(3, 4, 6).requires_grad_()
    expected = blocks_and_norm(model, x + model.positions[:4], _block)
    assert_equal_with_gradients(model(x), expected, [x, *model.parameters()])
