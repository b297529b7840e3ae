"""HSTU: what a position may see, and the block against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from alphafuse.recommenders.hstu import HSTU, HSTUBlock


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


def test_a_state_depends_on_its_own_and_earlier_items_alone() -> None:
    torch.manual_seed(0)
    model = HSTU(hidden_dim=8, history_length=6, num_layers=2, num_heads=2, dropout=0.5).eval()
    items = _vectors(1, 6, 8)
    states = model(items)
    for position in range(6):
        changed = items.clone()
        changed[0, position] += torch.linspace(-1, 2, 8).square()
        difference = (model(changed) - states).abs().amax(dim=2)[0]
        assert (difference[:position] == 0).all()
        assert (difference[position:] > 1e-5).all()


def test_shorter_histories_need_no_padding() -> None:
    torch.manual_seed(0)
    model = HSTU(hidden_dim=8, history_length=6, num_layers=2, num_heads=1, dropout=0.0)
    items = _vectors(2, 6, 8)
    torch.testing.assert_close(model(items)[:, :4], model(items[:, :4]))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_one_wanted_position_is_that_of_the_full_pass(num_layers: int) -> None:
    torch.manual_seed(2)
    model = HSTU(hidden_dim=8, history_length=6, num_layers=num_layers, num_heads=2, dropout=0.0)
    items, at = _vectors(4, 6, 8), torch.tensor([0, 5, 2, 3])
    torch.testing.assert_close(model(items, at), model(items)[torch.arange(4), at])


def test_no_queries_give_no_states() -> None:
    model = HSTU(hidden_dim=8, history_length=6, num_layers=1, num_heads=1, dropout=0.1)
    assert model(torch.zeros(0, 6, 8)).shape == (0, 6, 8)
    assert model(torch.zeros(0, 6, 8), torch.zeros(0, dtype=torch.int64)).shape == (0, 8)
