"""DreamRec: conditions, guidance and sampling."""

from __future__ import annotations

import pytest
import torch

from alphafuse.recommenders.diffusion import Diffusion, remaining_signal
from alphafuse.recommenders.dreamrec import Denoiser, DreamRec, sinusoidal_embedding
from alphafuse.recommenders.sasrec import SASRec

DIFFUSION = Diffusion(remaining_signal("linear", 40, (1e-4, 0.2)))


def _model(guidance: float, seed: int = 3) -> DreamRec:
    torch.manual_seed(0)
    return DreamRec(SASRec(8, 6, 1, 2, 0.5), 8, DIFFUSION, guidance, stride=10, seed=seed, condition_dropout=0.1).eval()


def _vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_denoiser_equals_its_formula() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(4).double()
    noisy, conditions = _vectors(2, 4).double(), _vectors(2, 4).double() + 1
    angles = [torch.tensor([t * 1.0, t / 10_000]) for t in (3, 20)]
    embedding = torch.stack([torch.cat([angle.sin(), angle.cos()]) for angle in angles]).double()
    step, output = denoiser.step, denoiser.output
    embedded = torch.nn.functional.gelu(embedding @ step[0].weight.T + step[0].bias) @ step[2].weight.T + step[2].bias
    joined = torch.cat([noisy, conditions, embedded], dim=1)
    expected = torch.nn.functional.gelu(joined @ output[0].weight.T + output[0].bias) @ output[2].weight.T
    found = denoiser(noisy, conditions, torch.tensor([3, 20]))
    torch.testing.assert_close(found, expected + output[2].bias, rtol=0, atol=1e-6)  # the embedding is float32


@pytest.mark.parametrize("dim", [1, 2, 7, 8])
def test_steps_have_embeddings_of_their_own(dim: int) -> None:
    embedding = sinusoidal_embedding(torch.arange(2000), dim)
    assert embedding.shape == (2000, dim)
    assert embedding.abs().max() <= 1
    if dim > 1:
        assert len(embedding.unique(dim=0)) == 2000


def test_conditions_are_states_of_the_history_encoder() -> None:
    model, items, at = _model(1.0), _vectors(3, 6, 8), torch.tensor([0, 5, 2])
    assert torch.equal(model(items), model.history_encoder(items))
    torch.testing.assert_close(model(items, at), model(items)[torch.arange(3), at])


def test_dropped_conditions_become_the_learned_one() -> None:
    model, conditions = _model(1.0), _vectors(3, 8)
    kept = model.drop_conditions(conditions, torch.tensor([False, True, False]))
    assert torch.equal(kept, torch.stack([conditions[0], model.no_condition, conditions[2]]))


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_guidance_weighs_two_predictions(guidance: float) -> None:
    """The loop of Song et al. 2021 by hand; without guidance it uses the conditional model alone."""
    model, conditions = _model(guidance), _vectors(3, 8)
    signal = remaining_signal("linear", 40, (1e-4, 0.2)).tolist()
    current = torch.randn(8, generator=torch.Generator().manual_seed(3)).expand(3, 8)
    with torch.no_grad():
        for step, following in ((39, 29), (29, 19), (19, 9), (9, 0), (0, None)):
            steps = torch.full((3,), step)
            clean = model.denoiser(current, conditions, steps)
            if guidance:
                without = model.denoiser(current, model.no_condition.expand(3, 8), steps)
                clean = (1 + guidance) * clean - guidance * without
            if following is not None:
                noise = (current - signal[step] ** 0.5 * clean) / (1 - signal[step]) ** 0.5
                current = signal[following] ** 0.5 * clean + (1 - signal[following]) ** 0.5 * noise
    torch.testing.assert_close(model.generate(conditions), clean)


def test_a_sample_depends_on_its_condition_and_the_seed_alone() -> None:
    conditions = _vectors(5, 8)
    whole = _model(2.0).generate(conditions)
    torch.testing.assert_close(torch.cat([_model(2.0).generate(part) for part in conditions.split(2)]), whole)
    assert (_model(2.0, seed=4).generate(conditions) - whole).abs().max() > 1e-3
    assert _model(2.0).generate(conditions[:0]).shape == (0, 8)


def test_sampling_starts_in_the_precision_of_scores() -> None:
    """With weights in bfloat16, the vectors between the steps are float32."""
    conditions = _vectors(5, 8)
    half = _model(1.0).to(torch.bfloat16).generate(conditions)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, _model(1.0).generate(conditions), rtol=0, atol=0.05)
