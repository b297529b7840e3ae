"""The loss that aligns the two views of an item, written out target by target."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from alphafuse.collectives import Communicator
from alphafuse.config import LossConfig
from alphafuse.items.encoders.base import FrozenFeatures
from alphafuse.items.encoders.rlmrec_con import RLMRecContrastiveEncoder
from alphafuse.items.table import Rows
from alphafuse.recommenders.sasrec import SASRec
from alphafuse.training.objective import Objective, StepInput

HISTORIES = torch.tensor([[0, 3, 5], [2, -1, -1]])
TARGETS = torch.tensor([[3, -1, 7], [4, -1, -1]])
PREDICTED = [3, 7, 4]
SHARED = torch.tensor([7, 1, 1])
"""One of them is a target, which is not its own negative; another counts twice."""
UNIFORM = torch.tensor([[1, 2], [6, 6], [3, 0]])
WEIGHT, TEMPERATURE = 0.3, 0.5


def _rows(step: StepInput) -> tuple[Rows, torch.Tensor, torch.Tensor]:
    """What a lookup of 8 items gives, with the text and the ID of all of them."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(8, 6, generator=generator)
    ids = torch.randn(8, 4, generator=generator).requires_grad_()
    items = step.items()
    return Rows(text, ids, torch.where(items < 0, 8, items), torch.arange(8), [], []), text, ids


def _loss(encoder: RLMRecContrastiveEncoder, loss: LossConfig, step: StepInput, rows: Rows) -> torch.Tensor:
    torch.manual_seed(0)
    backbone = SASRec(4, 3, num_layers=1, num_heads=1, dropout=0.0)
    total: torch.Tensor = Objective(encoder, backbone, loss, 8, Communicator())(rows, step, None)
    return total


@pytest.mark.parametrize("negatives", [SHARED, UNIFORM], ids=["shared", "uniform"])
@pytest.mark.parametrize("name", ["infonce", "bce"])
def test_alignment_is_added_as_written_out(negatives: torch.Tensor, name: str) -> None:
    step = StepInput(HISTORIES, TARGETS, negatives, 0.0, number=0, first_sample=0)
    rows, text, ids = _rows(step)
    encoder = RLMRecContrastiveEncoder(FrozenFeatures("embeddings", slice(0, 6)), 4, WEIGHT)
    loss = LossConfig(name=name, temperature=TEMPERATURE)
    mapped = encoder.text_to_id(text)
    expected = torch.zeros(())
    for number, item in enumerate(PREDICTED):
        others = [other for other in (negatives if negatives.dim() == 1 else negatives[number]) if other != item]
        similarities = [functional.cosine_similarity(ids[item], mapped[other], dim=0) for other in [item, *others]]
        exponentials = torch.exp(torch.stack(similarities) / TEMPERATURE)
        expected = expected - WEIGHT * torch.log(exponentials[0] / exponentials.sum())
    with_alignment = _loss(encoder, loss, step, rows)
    encoder.alignment_weight = 0.0
    alignment = with_alignment - _loss(encoder, loss, step, rows)
    torch.testing.assert_close(alignment, expected, rtol=0, atol=1e-5)
    trained = [ids, *encoder.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(alignment, trained), torch.autograd.grad(expected, trained), rtol=0, atol=1e-5
    )
