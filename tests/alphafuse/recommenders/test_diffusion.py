"""Schedules, the forward process's moments, and sampling with denoisers that are known in closed form."""

from __future__ import annotations

import typing

import pytest
import torch

from alphafuse.recommenders.diffusion import Diffusion, Schedule, add_noise, remaining_signal

SCHEDULES = typing.get_args(Schedule)
BETA_RANGE = (1e-4, 0.02)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("timesteps", [50, 2000])
def test_signal_falls_from_nearly_all(schedule: Schedule, timesteps: int) -> None:
    signal = remaining_signal(schedule, timesteps, BETA_RANGE)
    assert signal.shape == (timesteps,)
    assert (signal.diff() < 0).all()
    assert 0.8 < signal[0] < 1
    assert signal[-1] > 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_little_signal_is_left_after_many_steps(schedule: Schedule) -> None:
    assert remaining_signal(schedule, 2000, BETA_RANGE)[-1] < 0.01


def test_schedules_equal_their_formulas() -> None:
    linear = remaining_signal("linear", 3, (0.1, 0.5))
    assert linear.tolist() == pytest.approx([0.9, 0.9 * 0.7, 0.9 * 0.7 * 0.5])
    half = 499
    assert float(remaining_signal("exp", 1000, BETA_RANGE)[half]) == pytest.approx(2.718281828 ** -(0.05 + 4.95 / 4))
    at_half, at_start = (torch.cos(torch.tensor((u + 0.008) / 1.008 * torch.pi / 2)) ** 2 for u in (0.5, 0.0))
    assert float(remaining_signal("cosine", 1000, BETA_RANGE)[half]) == pytest.approx(float(at_half / at_start))
    assert float(remaining_signal("sqrt", 1000, BETA_RANGE)[half]) == pytest.approx((1 - 0.5001**0.5) / (1 - 0.01))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_moments_of_the_forward_process(schedule: Schedule) -> None:
    signal = remaining_signal(schedule, 100, BETA_RANGE)
    generator = torch.Generator().manual_seed(0)
    clean = torch.tensor([3.0, -1.0]).expand(200_000, 2)
    noise = torch.randn(clean.shape, generator=generator)
    for step in (0, 40, 99):
        noisy = add_noise(clean, Diffusion(signal).scales(torch.full((len(clean),), step)), noise)
        expected = (signal[step].sqrt() * clean[0]).float()
        torch.testing.assert_close(noisy.mean(dim=0), expected, rtol=0, atol=0.01)
        torch.testing.assert_close(noisy.var(dim=0), (1 - signal[step]).expand(2).float(), rtol=0.02, atol=0)


def test_the_forward_process_is_the_composition_of_its_steps() -> None:
    """Mean and variance of x ← √(1 − β_t) x + √β_t ε, step after step."""
    mean, variance = 1.0, 0.0
    betas = torch.linspace(*BETA_RANGE, 100).tolist()
    diffusion = Diffusion(remaining_signal("linear", 100, BETA_RANGE))
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    for t, beta in enumerate(betas):
        mean, variance = mean * (1 - beta) ** 0.5, (1 - beta) * variance + beta
        step = torch.tensor([t])
        assert float(add_noise(one, diffusion.scales(step), zero)) == pytest.approx(mean, rel=1e-5)
        assert float(add_noise(zero, diffusion.scales(step), one)) ** 2 == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("stride", [1, 7, 50])
def test_sampling_with_a_perfect_denoiser_recovers_the_clean_vectors(schedule: Schedule, stride: int) -> None:
    """On the way, sampling follows the forward process, with the noise that its start and the clean vectors imply."""
    clean = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    start = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    signal = remaining_signal(schedule, 50, BETA_RANGE)
    implied = (start - signal[-1].sqrt() * clean) / (1 - signal[-1]).sqrt()
    visited = []

    def perfect(noisy: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        visited.append(int(steps))
        left = signal[int(steps)]
        expected = left.sqrt() * clean + (1 - left).sqrt() * implied
        torch.testing.assert_close(noisy, expected, rtol=1e-4, atol=1e-4, check_dtype=False)
        return clean

    assert torch.equal(Diffusion(signal).sample(perfect, start, stride), clean)
    assert visited == {1: list(range(49, -1, -1)), 7: [49, 42, 35, 28, 21, 14, 7, 0], 50: [49, 0]}[stride]


def test_samples_of_a_gaussian_have_its_moments() -> None:
    """x₀ ~ N(m, v) has the denoiser E[x₀ | x_t] = m + √ᾱ v (x_t − √ᾱ m) / (ᾱ v + 1 − ᾱ)."""
    mean, variance = 2.0, 0.25
    signal = remaining_signal("cosine", 1000, BETA_RANGE)
    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))

    def posterior_mean(noisy: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        left = signal.float()[steps]
        return mean + left.sqrt() * variance * (noisy - left.sqrt() * mean) / (left * variance + 1 - left)

    samples = Diffusion(signal).sample(posterior_mean, noise, stride=1)
    assert float(samples.mean()) == pytest.approx(mean, abs=0.02)
    assert float(samples.var()) == pytest.approx(variance, rel=0.05)
