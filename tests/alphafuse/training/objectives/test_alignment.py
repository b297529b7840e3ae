"""The loss that aligns the two views of an item, written out target by target."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.definitions.planned_input import planned_input
from torch import nn
from torch.nn import functional

from alphafuse.config import LossConfig
from alphafuse.data.sampling.batches import Batch
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.encoders.base import FrozenFeatures, ItemEncoder
from alphafuse.items.encoders.llm_esr import LLMESREncoder
from alphafuse.items.encoders.rlmrec_con import RLMRecContrastiveEncoder
from alphafuse.items.encoders.rlmrec_gen import RLMRecGenerativeEncoder
from alphafuse.items.encoders.text_only import Adapter
from alphafuse.items.item_table import Rows
from alphafuse.kernels.negative_sums import OwnNegatives
from alphafuse.recommenders.diffusion import Diffusion, remaining_signal
from alphafuse.recommenders.dreamrec import DreamRec
from alphafuse.recommenders.sasrec import SASRec
from alphafuse.training.objectives.alignment import alignment_loss
from alphafuse.training.objectives.dense_model import DenseModel
from alphafuse.training.objectives.diffusion_objective import DiffusionObjective
from alphafuse.training.objectives.scoring_objective import ScoringObjective
from alphafuse.training.objectives.step_input import ScoredBlock, ScoredRows

HISTORIES = torch.tensor([[0, 3, 5], [2, -1, -1]])
TARGETS = torch.tensor([[3, -1, 7], [4, -1, -1]])
PREDICTED = [3, 7, 4]
SHARED = torch.tensor([7, 1, 1])
"""Items to compare with. One of them is a target, which is not its own negative; another one counts twice."""
UNIFORM = torch.tensor([[1, 2], [6, 6], [3, 0]])
WEIGHT, TEMPERATURE = 0.3, 0.5
EMBEDDINGS = FrozenFeatures("embeddings", slice(0, 6))
METHODS: dict[str, Callable[[], ItemEncoder]] = {
    "rlmrec_con": lambda: RLMRecContrastiveEncoder(EMBEDDINGS, 4, WEIGHT),
    "rlmrec_gen": lambda: RLMRecGenerativeEncoder(EMBEDDINGS, 4, WEIGHT, mask_ratio=0.0),
    "llm_esr": lambda: LLMESREncoder(EMBEDDINGS, 4, WEIGHT),
}
Views = tuple[torch.Tensor, torch.Tensor]


def _views(method: str, weights: list[torch.Tensor], text: torch.Tensor, ids: torch.Tensor) -> Views:
    """The two views of every item, through two linear layers."""
    first, first_bias, second, second_bias = weights
    if method == "llm_esr":
        return ids, (text @ first.T + first_bias) @ second.T + second_bias
    hidden = (ids if method == "rlmrec_gen" else text) @ first.T + first_bias
    mapped = torch.where(hidden > 0, hidden, 0.01 * hidden) @ second.T + second_bias
    return (mapped, text) if method == "rlmrec_gen" else (ids, mapped)


def _objective(encoder: ItemEncoder, loss: LossConfig) -> DenseModel:
    torch.manual_seed(0)
    sasrec = encoder.wrap(SASRec(4, 3, num_layers=1, num_heads=1, dropout=0.0), 4)
    if loss.name != "diffusion":
        return ScoringObjective(encoder, sasrec, loss, 8, Communicator())
    diffusion = Diffusion(remaining_signal("linear", 20, (1e-4, 0.02)))
    dreamrec = DreamRec(sasrec, 4 * encoder.num_parts, diffusion, guidance=0.0, stride=5, seed=0, condition_dropout=0.0)
    return DiffusionObjective(encoder, dreamrec, 0, loss.temperature)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("loss", "negatives"),
    [
        ({"name": "infonce"}, SHARED),
        ({"name": "infonce"}, UNIFORM),
        ({"name": "bce"}, SHARED),
        ({"name": "softmax"}, SHARED),
        ({"name": "diffusion", "similarity": "dot"}, SHARED),
    ],
    ids=["shared", "uniform", "bce", "softmax", "diffusion"],
)
def test_alignment_is_added_as_written_out(method: str, loss: dict[str, Any], negatives: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    text, ids = torch.randn(8, 6, generator=generator), torch.randn(8, 4, generator=generator).requires_grad_()
    step, rows = planned_input(HISTORIES, TARGETS, negatives, text, ids)
    places = torch.tensor([8 * number + item for number, item in enumerate(PREDICTED)])
    own = OwnNegatives(places, torch.tensor(PREDICTED), (0, 8))
    scored = ScoredRows([ScoredBlock(Rows(text, ids), own)], [len(PREDICTED)])
    torch.manual_seed(1)
    encoder = METHODS[method]()
    objective = _objective(encoder, LossConfig(**loss, temperature=TEMPERATURE))
    step = dataclasses.replace(step, draws=objective.draw(0, Batch(HISTORIES.numpy(), TARGETS.numpy(), 0)))
    first, second = _views(method, list(encoder.parameters()), text, ids)
    expected = torch.zeros(())
    for number, item in enumerate(PREDICTED):
        others = [other for other in (negatives if negatives.dim() == 1 else negatives[number]) if other != item]
        similarities = [functional.cosine_similarity(first[item], second[other], dim=0) for other in [item, *others]]
        exponentials = torch.exp(torch.stack(similarities) / TEMPERATURE)
        expected = expected - WEIGHT * torch.log(exponentials[0] / exponentials.sum())
    given = (rows, step, scored if loss["name"] == "softmax" else None)
    with_alignment = objective(*given)
    encoder.alignment_weight = 0.0
    alignment = with_alignment - objective(*given)
    torch.testing.assert_close(alignment, expected, rtol=0, atol=1e-5)
    trained = [ids, *encoder.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(alignment, trained), torch.autograd.grad(expected, trained), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("targets", "negatives", "others"),
    [
        ([0, 2, 1], [3, 2, 1], [[3, 1], [3]]),
        ([0, 2, 1], [[1, 2], [0, 1], [2, 2]], [[1], []]),
        ([2, -1, 2], [0, 1, 2], []),
    ],
    ids=["shared", "uniform", "none"],
)
def test_items_without_a_text_are_neither_aligned_nor_compared_with(
    targets: list[int], negatives: list[Any], others: list[list[int]]
) -> None:
    """Item 2 is without. The views of item 0 are one vector, those of item 1 at a right angle; `others` has what is
    left to compare them with."""
    text = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0], [3.0, 0.0]])
    ids = torch.tensor([[5.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], requires_grad=True)
    encoder = RLMRecGenerativeEncoder(FrozenFeatures("embeddings", slice(0, 2)), 2, WEIGHT, mask_ratio=0.0)
    encoder.id_to_text = Adapter(nn.Linear(2, 2, bias=False))
    nn.init.eye_(encoder.id_to_text[0].weight)
    step, rows = planned_input(torch.tensor([[0, 1, 2]]), torch.tensor([targets]), torch.tensor(negatives), text, ids)
    loss = alignment_loss(encoder, rows, step, TEMPERATURE)
    # Both look along the first axis, where the texts of the items 0 and 3 are, and across that of item 1.
    cosine = [1, 0, None, 1]
    expected = 0.0
    for item, compared in zip([0, 1], others, strict=False):
        exponentials = [math.exp(cosine[other] / TEMPERATURE) for other in [item, *compared]]
        expected -= WEIGHT * math.log(exponentials[0] / sum(exponentials))
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, ids)
    assert torch.isfinite(gradient).all()
    assert (gradient[2:] == 0).all()  # neither the item without a text nor one that is no target
