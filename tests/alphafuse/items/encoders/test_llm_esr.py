"""LLM-ESR: views of an item, cross attention position by position in float64, and causality."""

from __future__ import annotations

import torch
from support.definitions.gradients import assert_same
from torch import nn

from alphafuse.items.encoders.base import FrozenFeatures
from alphafuse.items.encoders.llm_esr import CrossAttention, DualView, LLMESREncoder
from alphafuse.recommenders.sasrec import SASRec


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def _dual_view(num_layers: int = 1) -> DualView:
    torch.manual_seed(0)
    return DualView(SASRec(4, 5, num_layers, num_heads=2, dropout=0.0), 4).double()


def _attended(attention: CrossAttention, asking: torch.Tensor, answering: torch.Tensor) -> torch.Tensor:
    """Attention from `asking` to `answering`, position by position; all of shape [batch, length, 4]."""
    key_weight, value_weight = attention.key_value.weight.split(4)
    histories = []
    for queries, answers in zip(asking, answering, strict=True):
        states = []
        for t, asked in enumerate(queries):
            query, seen = attention.query.weight @ asked, answers[: t + 1]
            weights = torch.softmax(torch.stack([query @ (key_weight @ a) / 2 for a in seen]), dim=0)
            states.append(sum(weight * (value_weight @ a) for weight, a in zip(weights, seen, strict=True)))
        histories.append(torch.stack(states))
    return torch.stack(histories)


def test_vector_and_views() -> None:
    encoder = LLMESREncoder(FrozenFeatures("embeddings", slice(0, 6), 40.0), 4, 0.2).double()
    text, ids = _random(3, 6), _random(3, 4).requires_grad_()
    first, second = encoder.adapter
    assert first.out_features == 3
    adapted = (text @ first.weight.T + first.bias) @ second.weight.T + second.bias
    vectors, inputs = torch.cat([ids, adapted], dim=1), [ids, *encoder.parameters()]
    assert_same(encoder(text, ids), vectors, inputs)
    assert_same(torch.cat(encoder.alignment_views(text, ids), dim=1), vectors, inputs)
    assert (encoder.trainable_dim, encoder.initialization) == (4, "features")


def test_cross_attention_equals_its_formula() -> None:
    torch.manual_seed(0)
    attention = CrossAttention(4).double()
    asking, answering = (views.requires_grad_() for views in _random(2, 2, 3, 4))
    inputs = [asking, answering, *attention.parameters()]
    assert_same(attention(asking, answering), _attended(attention, asking, answering), inputs)


def test_dual_view_equals_its_formula() -> None:
    """Each view attends to the other, and the result goes through the shared backbone."""
    dual = _dual_view()
    items = _random(2, 5, 8).requires_grad_()
    ids, texts = items[..., :4], items[..., 4:]
    first = dual.backbone(_attended(dual.texts_to_ids, texts, ids))
    second = dual.backbone(_attended(dual.ids_to_texts, ids, texts))
    assert_same(dual(items), torch.cat([first, second], dim=2), [items, *dual.parameters()])


def test_a_state_depends_on_its_own_and_earlier_items_alone() -> None:
    dual = _dual_view(num_layers=2)
    items = _random(1, 5, 8)
    states = dual(items)
    for position in range(5):
        changed = items.clone()
        changed[0, position] += torch.linspace(-1, 2, 8).square()
        difference = (dual(changed) - states).abs()[0]
        assert (difference[:position] == 0).all()
        for view in difference[position:].split(4, dim=1):
            assert (view.amax(dim=1) > 1e-6).all()


def test_each_view_asks_the_other() -> None:
    """The items that a view attends to depend on the other view, except for histories of one item."""
    dual, items = _dual_view(), _random(1, 5, 8)
    changed = items.clone()
    changed[..., 4:] += 1
    difference = (dual(changed) - dual(items)).abs()[0, :, :4].amax(dim=1)  # of the ID view
    assert difference[0] == 0
    assert (difference[1:] > 1e-6).all()


def test_one_wanted_position_is_that_of_the_full_pass() -> None:
    dual, items, at = _dual_view(), _random(3, 5, 8), torch.tensor([0, 4, 2])
    torch.testing.assert_close(dual(items, at), dual(items)[torch.arange(3), at])


def test_a_single_item_answers_for_itself() -> None:
    """With one item, the result of attention is the value of that item."""
    dual = _dual_view()
    dual.backbone = PassThrough()
    item = _random(1, 1, 8)
    values = [attention.key_value.weight[4:] for attention in (dual.texts_to_ids, dual.ids_to_texts)]
    expected = torch.cat([values[0] @ item[0, 0, :4], values[1] @ item[0, 0, 4:]])
    torch.testing.assert_close(dual(item)[0, 0], expected)


class PassThrough(nn.Module):
    def forward(self, item_vectors: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        return item_vectors
