"""UniSRec's mixture of whitening experts, item by item and expert by expert in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from alphafuse.items.encoders.base import FrozenFeatures
from alphafuse.items.encoders.unisrec import UniSRecEncoder


def _encoder(num_experts: int, dropout: float) -> UniSRecEncoder:
    """An encoder with weights that are all different."""
    torch.manual_seed(0)
    encoder = UniSRecEncoder(FrozenFeatures("embeddings", slice(0, 6)), 3, num_experts, dropout).double()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    return encoder


def _text() -> torch.Tensor:
    return torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _definition(encoder: UniSRecEncoder, text: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Item vectors [items, hidden_dim]; noise: standard normal, [items, experts]."""
    mixture = encoder.adapter[0]
    vectors = []
    for x, drawn in zip(text, noise, strict=True):
        logits = x @ mixture.gate + drawn * torch.log1p(torch.exp(x @ mixture.noise))
        gates = torch.exp(logits) / torch.exp(logits).sum()
        experts = [expert.weight.weight @ (x - expert.bias) for expert in mixture.experts]
        vectors.append(sum(gate * expert for gate, expert in zip(gates, experts, strict=True)))
    return torch.stack(vectors)


@pytest.mark.parametrize("training", [False, True])
def test_mixture_equals_its_formula(training: bool) -> None:
    encoder = _encoder(num_experts=4, dropout=0.0).train(training)
    torch.manual_seed(2)
    noise = torch.randn(5, 4, dtype=torch.float64) if training else torch.zeros(5, 4)
    expected = _definition(encoder, _text(), noise)
    torch.manual_seed(2)
    vectors = encoder(_text(), torch.zeros(5, 0))
    torch.testing.assert_close(vectors, expected)
    weights = dict(encoder.named_parameters())
    if not training:
        del weights["adapter.0.noise"]
    torch.testing.assert_close(
        torch.autograd.grad(vectors.square().sum(), list(weights.values())),
        torch.autograd.grad(expected.square().sum(), list(weights.values())),
    )


def test_experts_weigh_the_same_at_first() -> None:
    encoder = UniSRecEncoder(FrozenFeatures("embeddings", slice(0, 6)), 3, 8, 0.0).double().eval()
    experts = torch.stack([expert(_text()) for expert in encoder.adapter[0].experts])
    torch.testing.assert_close(encoder(_text(), torch.zeros(5, 0)), experts.mean(dim=0))


def test_dropout_and_noise_are_for_training() -> None:
    encoder = _encoder(num_experts=2, dropout=0.5)
    arguments = _text(), torch.zeros(5, 0)
    assert not torch.equal(encoder(*arguments), encoder(*arguments))
    encoder.eval()
    assert torch.equal(encoder(*arguments), encoder(*arguments))


def test_dropout_is_on_the_text() -> None:
    """With everything dropped, only the bias is left, for any text."""
    expert = _encoder(num_experts=1, dropout=0.5).adapter[0].experts[0]
    expert.dropout.p = 1.0
    torch.testing.assert_close(expert(_text()), functional.linear(-expert.bias, expert.weight.weight).expand(5, 3))
