"""Draws of diffusion: their distribution, and that they do not depend on how the batch is divided."""

from __future__ import annotations

import numpy as np
import pytest

from alphafuse.data.sampling.noise import TargetNoise, target_noise


def _draw(first: int, chosen: np.ndarray, dim: int = 5, step: int = 3) -> TargetNoise:
    return target_noise(7, step, first, chosen, dim, timesteps=50, drop_rate=0.1)


@pytest.mark.parametrize("dim", [1, 4, 5, 12])
def test_a_part_of_the_batch_draws_its_part(dim: int) -> None:
    chosen = np.random.default_rng(0).random(40) < 0.6
    whole = _draw(80, chosen, dim)
    parts = [_draw(80 + start, chosen[start:stop], dim) for start, stop in ((0, 7), (7, 8), (8, 40))]
    for name in ("timesteps", "dropped", "noise"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))
    assert whole.noise.shape == (chosen.sum(), dim)


def test_draws_depend_on_the_place_and_the_step() -> None:
    everything = np.ones(4, bool)
    noise = _draw(0, everything).noise
    assert len(np.unique(noise)) == noise.size
    assert not np.isin(_draw(0, everything, step=4).noise, noise).any()
    assert not np.isin(_draw(4, everything).noise, noise).any()


def test_draws_have_their_distributions() -> None:
    drawn = _draw(0, np.ones(40_000, bool), dim=6)
    noise, targets = drawn.noise, len(drawn.noise)
    assert noise.mean(axis=0) == pytest.approx(np.zeros(6), abs=0.02)
    assert np.cov(noise.T) == pytest.approx(np.eye(6), abs=0.03)
    assert (noise**4).mean() == pytest.approx(3, rel=0.02)
    for quantile, value in ((0.05, -1.645), (0.5, 0.0), (0.975, 1.96)):
        assert (noise < value).mean() == pytest.approx(quantile, abs=0.005)
    assert drawn.dropped.mean() == pytest.approx(0.1, abs=0.006)
    counts = np.bincount(drawn.timesteps, minlength=50)
    assert counts.shape == (50,)
    assert counts == pytest.approx(np.full(50, targets / 50), abs=5 * (targets / 50) ** 0.5)
