"""The contract of every backbone: causality, one wanted position, histories of any length, batches without queries."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from alphafuse.recommenders.gru4rec import GRU4Rec
from alphafuse.recommenders.hstu import HSTU
from alphafuse.recommenders.ligr import LiGR
from alphafuse.recommenders.sasrec import SASRec

Build = Callable[[int, float], nn.Module]
BACKBONES: dict[str, Build] = {
    "sasrec": lambda layers, dropout: SASRec(8, 6, layers, 2, dropout),
    "ligr": lambda layers, dropout: LiGR(8, 6, layers, 2, dropout),
    "gru4rec": lambda layers, dropout: GRU4Rec(8, 5, layers, dropout),
    "hstu": lambda layers, dropout: HSTU(8, 6, layers, 2, dropout),
}
every_backbone = pytest.mark.parametrize("build", BACKBONES.values(), ids=BACKBONES)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@every_backbone
def test_a_state_depends_on_its_own_and_earlier_items_alone(build: Build) -> None:
    model, items = build(2, 0.5).eval(), torch.randn(1, 6, 8)
    states = model(items)
    for position in range(6):
        changed = items.clone()
        changed[0, position] += torch.linspace(-1, 2, 8).square()
        difference = (model(changed) - states).abs().amax(dim=2)[0]
        assert (difference[:position] == 0).all()
        assert (difference[position:] > 1e-5).all()


@every_backbone
def test_shorter_histories_need_no_padding(build: Build) -> None:
    model, items = build(2, 0.0), torch.randn(2, 6, 8)
    torch.testing.assert_close(model(items)[:, :4], model(items[:, :4]))


@every_backbone
@pytest.mark.parametrize("num_layers", [1, 2])
def test_one_wanted_position_is_that_of_the_full_pass(build: Build, num_layers: int) -> None:
    model, items, at = build(num_layers, 0.0), torch.randn(4, 6, 8), torch.tensor([0, 5, 2, 3])
    torch.testing.assert_close(model(items, at), model(items)[torch.arange(4), at])


@every_backbone
def test_dropout_acts_in_training_alone(build: Build) -> None:
    model, items = build(2, 0.5), torch.randn(4, 6, 8)
    assert not torch.equal(model(items), model(items))
    model.eval()
    assert torch.equal(model(items), model(items))


@every_backbone
def test_no_queries_give_no_states(build: Build) -> None:
    model = build(1, 0.1)
    assert model(torch.zeros(0, 6, 8)).shape == (0, 6, 8)
    assert model(torch.zeros(0, 6, 8), torch.zeros(0, dtype=torch.int64)).shape == (0, 8)
