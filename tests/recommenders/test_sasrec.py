"""SASRec: what a position may see, and the block against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from alphafuse.recommenders.sasrec import SASRec, SASRecBlock


def _vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_a_state_depends_on_its_own_and_earlier_items_alone() -> None:
    torch.manual_seed(0)
    model = SASRec(hidden_dim=8, history_length=6, num_layers=2, num_heads=2, dropout=0.5).eval()
    items = _vectors(1, 6, 8)
    states = model(items)
    for position in range(6):
        changed = items.clone()
        changed[0, position] += torch.linspace(-1, 2, 8).square()
        difference = (model(changed) - states).abs().amax(dim=2)[0]
        assert (difference[:position] == 0).all()
        assert (difference[position:] > 1e-4).all()


def test_shorter_histories_need_no_padding() -> None:
    torch.manual_seed(0)
    model = SASRec(hidden_dim=8, history_length=6, num_layers=1, num_heads=1, dropout=0.0)
    items = _vectors(2, 6, 8)
    torch.testing.assert_close(model(items)[:, :4], model(items[:, :4]))


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


@pytest.mark.parametrize("num_layers", [1, 2])
def test_one_wanted_position_is_that_of_the_full_pass(num_layers: int) -> None:
    torch.manual_seed(2)
    model = SASRec(hidden_dim=8, history_length=6, num_layers=num_layers, num_heads=2, dropout=0.0)
    items, at = _vectors(4, 6, 8), torch.tensor([0, 5, 2, 3])
    torch.testing.assert_close(model(items, at), model(items)[torch.arange(4), at])


def test_no_queries_give_no_states() -> None:
    model = SASRec(hidden_dim=8, history_length=6, num_layers=1, num_heads=1, dropout=0.1)
    assert model(torch.zeros(0, 6, 8)).shape == (0, 6, 8)
    assert model(torch.zeros(0, 6, 8), torch.zeros(0, dtype=torch.int64)).shape == (0, 8)
