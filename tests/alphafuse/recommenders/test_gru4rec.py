"""GRU4Rec: the network against its formula in float64, and its layers against those of torch."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from support.definitions.attention_formulas import assert_equal_with_gradients
from torch import nn

from alphafuse.recommenders.gru4rec import GRU4Rec, StackedGRU


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


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_layers_with_dropout_equal_those_of_torch_to_the_last_bit(num_layers: int, precision: torch.dtype) -> None:
    torch.manual_seed(0)
    theirs = nn.GRU(6, 5, num_layers, batch_first=True, dropout=0.3 if num_layers > 1 else 0.0).to(precision)
    torch.manual_seed(0)
    ours = StackedGRU(6, 5, num_layers, 0.3).to(precision)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    vectors = _vectors(7, 4, 6).to(precision)
    for training in (True, False):
        results = []
        for gru in (theirs.train(training), ours.train(training)):
            gru.zero_grad()
            torch.manual_seed(1)
            states = gru(vectors)
            states = states[0] if gru is theirs else states
            states.float().square().sum().backward()
            results.append([states, torch.rand(2), *(parameter.grad for parameter in gru.parameters())])
        assert all(torch.equal(own, expected) for expected, own in zip(*results, strict=True))


def test_dropout_between_layers_is_drawn_by_torchs_generator_alone() -> None:
    """cuDNN draws with a state of its own, which no seed sets back: no layer may be given a share to drop."""
    with patch("torch.gru", wraps=torch.gru) as layers:
        StackedGRU(6, 5, 3, 0.3)(_vectors(2, 4, 6))
    assert [(call.args[4], call.args[5]) for call in layers.call_args_list] == [(1, 0.0)] * 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_seed_repeats_the_dropout_between_layers_on_a_gpu() -> None:
    model = GRU4Rec(8, 5, 3, 0.3).cuda()
    states = []
    for _ in range(2):
        torch.manual_seed(1)
        states.append(model(_vectors(4, 6, 8).cuda()))
    assert torch.equal(*states)
