"""The checks of `make gpu`, as far as a CPU can make them; and what is said of checks that are not made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from alphafuse.nullspace.torch_arithmetic import TorchArithmetic
from benchmarks import gpu
from benchmarks.gpu_checks import catalog, decomposition, small_steps, speed, steps
from benchmarks.gpu_checks.outcome import Outcome, Skipped, run_check

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


CHOSEN = ("sampled_softmax, in_batch", "whitenrec", "unisrec", "dreamrec")


def test_trainings_are_compared() -> None:
    with patch.object(steps, "CONFIGURATIONS", {name: small_steps.CONFIGURATIONS[name] for name in CHOSEN}):
        assert steps.equals_the_cpu(CPU)["cases"] == 4
        assert steps.waits_for_nothing(CPU) == {"cases": 4}
        real = small_steps.SmallTraining.losses
        wrong = iter((1.0, 1.1))
        with (
            patch.object(steps.SmallTraining, "losses", lambda training: real(training) * next(wrong)),
            pytest.raises(AssertionError, match="sampled_softmax, in_batch: losses"),
        ):
            steps.equals_the_cpu(CPU)


def test_ranks_are_compared() -> None:
    assert catalog.ranks_with_ties(CPU, (100, 130), (1, 7)) == {"cases": 8}
    wrong = lambda *_: (torch.arange(100), torch.arange(100))  # noqa: E731
    with (
        patch("alphafuse.evaluation.ranking.catalog_ranking.BetterItems.add", wrong),
        pytest.raises(AssertionError, match="ranks alone"),
    ):
        catalog.ranks_with_ties(CPU, (100,), (7,))


def test_null_spaces_are_compared() -> None:
    found = decomposition.equals_numpy(CPU, num_items=3000, dim=48, block=1300)
    assert found["precision of this card"] == "torch.float64"
    assert found["error of eigenvalues, gram, float64"] < 1e-10 < found["error of eigenvalues, gram, float32"]
    real = TorchArithmetic.scatter
    tf32 = lambda arithmetic, rows, probe: real(arithmetic, rows.to(torch.bfloat16).double(), probe)  # noqa: E731
    with patch.object(TorchArithmetic, "scatter", tf32), pytest.raises(AssertionError, match="gram, float64: eigen"):
        decomposition.equals_numpy(CPU, num_items=3000, dim=48, block=1300)


def test_speed_is_measured() -> None:
    assert speed.limits(CPU, size=16, megabytes=1)["products in float32, TFLOP/s"] > 0
    assert speed.step_time(CPU, 500, windows=4, length=5, steps=3)["ms a step"] > 0
    assert speed.sampled_softmax(CPU, 30, 20, 8)["ms, kernel"] > 0
    assert speed.ranking_time(CPU, 200, 5, 8, 3)["ranks / product"] > 0
    assert decomposition.time_of_moments(CPU, (24,), blocks=2)["moments / product, 24 dimensions, float32"] > 0


@pytest.mark.distributed
@pytest.mark.parametrize(("place", "figures"), [("resume_repeats", 1), ("precisions_and_zero_stages", 5)])
def test_trainings_with_deepspeed(monkeypatch: pytest.MonkeyPatch, place: str, figures: int) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    outcome = gpu.run_in_process(f"trainings:{place}", CPU, 300)
    assert (outcome.result, len(outcome.figures)) == ("passed", figures), outcome.reason


def test_what_is_not_made_is_not_passed() -> None:
    def without_package(_: torch.device) -> dict[str, Any]:
        raise ModuleNotFoundError("No module named 'deepspeed.x'", name="deepspeed.x")

    def own_module_is_gone(_: torch.device) -> dict[str, Any]:
        raise ModuleNotFoundError("No module named 'alphafuse.x'", name="alphafuse.x")

    def wrong(_: torch.device) -> dict[str, Any]:
        raise AssertionError("1 instead of 2")

    skipped = run_check(without_package, CPU)
    assert (skipped.result, skipped.reason) == ("skipped", "deepspeed is not installed")
    assert run_check(steps.launches_few_kernels, CPU).result == "skipped"
    assert run_check(own_module_is_gone, CPU).result == "failed"
    failed = run_check(wrong, CPU)
    assert (failed.result, gpu.rows_of("it", failed)[0]["figure"]) == ("failed", "AssertionError: 1 instead of 2")
    with pytest.raises(Skipped):
        steps.launches_few_kernels(CPU)


@pytest.mark.parametrize("place", gpu.CHECKS.values())
def test_every_check_is_there(place: str) -> None:
    assert callable(gpu.load(place))


@pytest.mark.distributed
def test_a_check_has_a_process_and_an_end() -> None:
    assert gpu.run_in_process("steps:launches_few_kernels", CPU, 120).result == "skipped"
    late = gpu.run_in_process("speed:limits", CPU, 0)
    assert (late.result, late.reason) == ("failed", "its time was over")


def test_the_command_writes_figures_and_fails_with_a_check(tmp_path: Path) -> None:
    outcomes = {"passes": Outcome("passed", 1.0, {"ms": 2.5}), "fails": Outcome("failed", 1.0, reason="a\nb")}
    file = tmp_path / "new" / "gpu.json"
    with (
        patch.object(gpu, "CHECKS", {name: name for name in outcomes}),
        patch.object(gpu, "run_in_process", lambda place, *_: outcomes[place]),
        patch("torch.cuda.is_available", return_value=True),
        patch.object(gpu, "publish", lambda *arguments: arguments[-1].write_text(json.dumps(arguments[1:3]))),
        patch.object(sys, "argv", ["gpu", "--json", str(file)]),
    ):
        assert gpu.main() == gpu.FAILED
    counts, rows = json.loads(file.read_text())
    assert counts == {"passed": 1, "failed": 1, "skipped": 0}
    assert [(row["check"], row["figure"], row["value"]) for row in rows] == [
        ("passes", "ms", 2.5),
        ("fails", "b", None),
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == gpu.NO_GPU
    assert result.stderr.startswith("There is no GPU here")
