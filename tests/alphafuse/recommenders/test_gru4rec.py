"""GRU4Rec: the network against its formula in float64."""

from __future__ import annotations

import torch
from support.definitions.attention_formulas import assert_equal_with_gradients

from alphafuse.recommenders.gru4rec import GRU4Rec


def _vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_network_equals_its_formula() -> None:
    torch.manual_seed(0)
    model = GRU4Rec(hidden_dim=4, state_dim=3, num_layers=1, dropout=0.0).double()
    x = _vectors(2, 5, 4).double().requires_grad_()
    gru, expected = model.gru, []
    for sample in range(2):
        state = torch.zeros(3).double()
        for t in range(5):
            from_item = gru.weight_ih_l0 @ x[sample, t] + gru.bias_ih_l0
            from_state = gru.weight_hh_l0 @ state + gru.bias_hh_l0
            reset = torch.sigmoid(from_item[:3] + from_state[:3])
            update = torch.sigmoid(from_item[3:6] + from_state[3:6])
            candidate = torch.tanh(from_item[6:] + reset * from_state[6:])
            state = (1 - update) * candidate + update * state
            expected.append(model.output.weight @ state + model.output.bias)
    assert_equal_with_gradients(model(x), torch.stack(expected).view(2, 5, 4), [x, *model.parameters()])
