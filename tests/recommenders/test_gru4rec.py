"""GRU4Rec: what a position may see, and the network against its formula in float64."""

from __future__ import annotations

import pytest
import torch

from alphafuse.recommenders.gru4rec import GRU4Rec


def _vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_network_equals_its_formula() -> None:
    torch.manual_seed(0)
    model = GRU4Rec(hidden_dim=4, state_dim=3, num_layers=1, dropout=0.0).double()
    x = _vectors(2, 5, 4).double()
    gru = model.gru
    expected = torch.zeros(2, 5, 4).double()
    for sample in range(2):
        state = torch.zeros(3).double()
        for t in range(5):
            from_item = gru.weight_ih_l0 @ x[sample, t] + gru.bias_ih_l0
            from_state = gru.weight_hh_l0 @ state + gru.bias_hh_l0
            reset = torch.sigmoid(from_item[:3] + from_state[:3])
            update = torch.sigmoid(from_item[3:6] + from_state[3:6])
            candidate = torch.tanh(from_item[6:] + reset * from_state[6:])
            state = (1 - update) * candidate + update * state
            expected[sample, t] = model.output.weight @ state + model.output.bias
    torch.testing.assert_close(model(x), expected)


def test_a_state_depends_on_its_own_and_earlier_items_alone() -> None:
    torch.manual_seed(0)
    model = GRU4Rec(hidden_dim=8, state_dim=8, num_layers=2, dropout=0.5).eval()
    items = _vectors(1, 4, 8)
    states = model(items)
    for position in range(4):
        changed = items.clone()
        changed[0, position] += 3
        difference = (model(changed) - states).abs().amax(dim=2)[0]
        assert (difference[:position] == 0).all()
        assert (difference[position:] > 1e-5).all()


@pytest.mark.parametrize("num_layers", [1, 2])
def test_one_wanted_position_is_that_of_the_full_pass(num_layers: int) -> None:
    torch.manual_seed(0)
    model = GRU4Rec(hidden_dim=8, state_dim=5, num_layers=num_layers, dropout=0.0)
    items, at = _vectors(4, 6, 8), torch.tensor([0, 5, 2, 3])
    torch.testing.assert_close(model(items, at), model(items)[torch.arange(4), at])


def test_no_queries_give_no_states() -> None:
    model = GRU4Rec(hidden_dim=8, state_dim=8, num_layers=1, dropout=0.1)
    assert model(torch.zeros(0, 6, 8)).shape == (0, 6, 8)
    assert model(torch.zeros(0, 6, 8), torch.zeros(0, dtype=torch.int64)).shape == (0, 8)
