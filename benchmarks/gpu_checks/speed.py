"""Times of the step, of the kernels and of the ranking, beside what the device does at most, which is measured too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from alphafuse.config import TrainConfig
from alphafuse.data.sampling.batches import Batch
from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.devices import full_precision
from alphafuse.evaluation.ranking.catalog_ranking import CatalogRanking, Queries
from alphafuse.items.encoders.alphafuse import AlphaFuseEncoder
from alphafuse.items.item_table import ItemTable
from alphafuse.items.row_adam import RowAdam
from alphafuse.kernels.negative_sums import OwnNegatives, exclude, log_partition
from alphafuse.recommenders.sasrec import SASRec
from alphafuse.storage.filesystem.read_ahead import read_ahead
from alphafuse.training.negative_sampler import NegativeSampler
from alphafuse.training.objectives.scoring_objective import ScoringObjective
from alphafuse.training.step import TrainingStep
from alphafuse.training.step_plan import StepPlanner
from benchmarks.gpu_checks.outcome import on_device, seconds_of, wait_for
from benchmarks.gpu_checks.small_steps import RATES, FusedAdam

HIDDEN_DIM, NULL_DIM = 128, 64
GIGA, TERA, MIB = 1e9, 1e12, 2**20


def limits(device: torch.device, size: int = 8192, megabytes: int = 4096) -> dict[str, Any]:
    """Products and copies by torch: what the device does at most."""
    found: dict[str, Any] = {}
    for name, dtype, precision in (
        ("float32", torch.float32, "highest"),
        ("TF32", torch.float32, "high"),
        ("bfloat16", torch.bfloat16, "highest"),
    ):
        torch.set_float32_matmul_precision(precision)
        one, other = torch.randn(2, size, size, device=device, dtype=dtype)
        found[f"products in {name}, TFLOP/s"] = 2 * size**3 / seconds_of(lambda: one @ other, device, 5) / TERA  # noqa: B023
    torch.set_float32_matmul_precision("highest")
    source = torch.zeros(megabytes * 250_000, device=device)
    target = torch.empty_like(source)
    found["copies, GB/s read and written"] = (
        2 * source.nbytes / seconds_of(lambda: target.copy_(source), device, 5) / GIGA
    )
    return found


def step_time(
    device: torch.device, num_items: int = 10**6, windows: int = 1024, length: int = 50, steps: int = 50
) -> dict[str, Any]:
    """The default loss in windows of `length`, planned in a thread beside; and how long the device alone is busy."""
    config = TrainConfig.model_validate({"batch_size": windows, "log_steps": 1000})
    communicator = Communicator()
    torch.manual_seed(0)
    encoder, backbone = AlphaFuseEncoder(HIDDEN_DIM, NULL_DIM, "add", "zeros"), SASRec(HIDDEN_DIM, length, 1, 1, 0.1)
    objective = ScoringObjective(encoder, backbone, config.loss, num_items, communicator).to(device)
    table = ItemTable(num_items, HIDDEN_DIM, NULL_DIM, RowAdam(), communicator, device)
    table.features.normal_()
    sampler = NegativeSampler(config, 0, num_items, communicator, None, None, False)
    planner = StepPlanner(config, table, sampler, objective.draw, communicator, device)
    engine: Any = FusedAdam(objective)
    step = TrainingStep(config, 0, table, engine, communicator)
    generator = np.random.default_rng(0)

    def batches() -> list[Batch]:
        items = generator.integers(num_items, size=(windows, length + 1))
        return [Batch(items[:, :-1], items[:, 1:], 0)]

    drawn = [batches() for _ in range(steps)]

    def train() -> None:
        for plan in read_ahead(planner.plans(iter(drawn), 0)):
            step(plan, RATES)

    planned = list(planner.plans(iter(drawn), 0))

    def train_planned() -> None:
        for plan in planned:
            step(plan, RATES)

    planning = seconds_of(lambda: list(planner.plans(iter(drawn[:5]), 0)), device, 1) / min(5, steps)
    return {
        "ms a step": 1e3 * seconds_of(train, device, 1) / steps,
        "ms a step, planned before": 1e3 * seconds_of(train_planned, device, 1) / steps,
        "ms of planning, on the host": 1e3 * planning,
        "ms a step, of the device": _busy_ms(train_planned, device, steps),
        "samples a step": windows,
        "MiB of the device": _peak_mib(train_planned, device),
    }


def sampled_softmax(
    device: torch.device, targets: int = 51_200, negatives: int = 8192, width: int = HIDDEN_DIM
) -> dict[str, Any]:
    """Forward and backward pass over targets × negatives, by kernel and with a matrix of scores."""
    generator = torch.Generator().manual_seed(0)
    states, vectors = (torch.randn(count, width, generator=generator).to(device) for count in (targets, negatives))
    states, vectors = (states / width**0.5).requires_grad_(), vectors.requires_grad_()
    own = OwnNegatives(
        torch.zeros(0, dtype=torch.int64, device=device),
        torch.full((targets,), -1, device=device),
        torch.arange(negatives, device=device),
    )

    def matrix() -> torch.Tensor:
        return exclude(states @ vectors.T, own.places, -1e30).logsumexp(dim=1)

    by_kernel, by_matrix = (
        torch.autograd.grad(sums().sum(), (states, vectors))
        for sums in (lambda: log_partition(states, vectors, own), matrix)
    )
    for one, other in zip(by_kernel, by_matrix, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-3 * float(other.abs().max()))
    found: dict[str, Any] = {}
    for name, sums in (("kernel", lambda: log_partition(states, vectors, own)), ("matrix", matrix)):

        def work() -> None:
            torch.autograd.grad(sums().sum(), (states, vectors))  # noqa: B023

        seconds = seconds_of(work, device, 3)
        found[f"ms, {name}"] = 1e3 * seconds
        found[f"MiB, {name}"] = _peak_mib(work, device)
        found[f"TFLOP/s of three products, {name}"] = 6 * targets * negatives * width / seconds / TERA
    return found


def ranking_time(
    device: torch.device, num_items: int = 10**6, num_queries: int = 4096, width: int = HIDDEN_DIM, listed: int = 50
) -> dict[str, Any]:
    """Exact ranks, ranks with lists, and the bare product in float32."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(num_items, width, generator=generator).to(device)
    hidden = torch.randn(num_queries, width, generator=generator).to(device)
    targets = torch.randint(num_items, (num_queries,), generator=generator).to(device)
    ranking = CatalogRanking(vectors, 0, "dot", Communicator())

    @full_precision()
    def product() -> None:
        for part in hidden.split(512):
            for tile in vectors.split(65_536):
                torch.mm(part, tile.T)

    bare = seconds_of(product, device, 2)
    ranks = seconds_of(lambda: ranking.rank(Queries(hidden, targets)), device, 2)
    lists = seconds_of(lambda: ranking.rank(Queries(hidden, targets), listed), device, 2)
    return {
        "ms, bare product": 1e3 * bare,
        "ms, exact ranks": 1e3 * ranks,
        f"ms, exact ranks and top {listed}": 1e3 * lists,
        "ranks / product": ranks / bare,
        "TFLOP/s of the ranks": 2 * num_items * num_queries * width / ranks / TERA,
    }


def _busy_ms(work: Callable[[], Any], device: torch.device, steps: int) -> float | None:
    """Milliseconds of a step in which the device computes or copies; None on a CPU."""
    if device.type != "cuda":
        return None
    return sum(event.time_range.elapsed_us() for event in on_device(work, device)) / 1e3 / steps


def _peak_mib(work: Callable[[], Any], device: torch.device) -> float | None:
    """Largest memory that is allocated while `work` is done; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    work()
    wait_for(device)
    return torch.cuda.max_memory_allocated(device) / MIB
