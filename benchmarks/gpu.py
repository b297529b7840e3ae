"""All that a GPU should be tried for, in less than ten minutes and without a network: `make gpu`.

    python -m benchmarks.gpu --json runs/gpu.json

Each check has a process of its own, so that none suffers from the failure of another. A check whose package is not
installed is skipped, and says so. The command fails if a check fails, and where there is no GPU.
"""

from __future__ import annotations

import importlib
import multiprocessing
import sys
import time
from typing import Any

import torch

from alphafuse.distributed.devices import prepare_device
from benchmarks.common.tables import arguments, publish
from benchmarks.gpu_checks.outcome import Outcome, run_check

CHECKS = {
    "losses equal those of the CPU, every encoder, backbone and loss": "steps:equals_the_cpu",
    "a step waits for nothing": "steps:waits_for_nothing",
    "a step launches few kernels": "steps:launches_few_kernels",
    "a resumed training repeats the undisturbed one": "trainings:resume_repeats",
    "bfloat16 and ZeRO": "trainings:precisions_and_zero_stages",
    "exact ranks and lists with ties": "catalog:ranks_with_ties",
    "embedding with vLLM": "text:vllm_embeds",
    "null space of numpy, in float64 and float32": "decomposition:equals_numpy",
    "limits of the device": "speed:limits",
    "time of a step": "speed:step_time",
    "time of the decomposition": "decomposition:time_of_moments",
    "sampled softmax": "speed:sampled_softmax",
    "time of the ranking": "speed:ranking_time",
}
"""Checks in their order, as module and function in `benchmarks.gpu_checks`."""
SECONDS = 570
"""Time of all checks together."""
NO_GPU, FAILED = 2, 1
"""Exit codes."""


def run_in_process(place: str, device: torch.device, seconds: float) -> Outcome:
    """Make the check `module:function` in a new process, which has some seconds for it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(place, device, theirs))
    start = time.monotonic()
    process.start()
    theirs.close()
    try:
        outcome: Outcome | None = ours.recv() if ours.poll(max(0.0, seconds)) else None
    except EOFError:
        process.join()
        return Outcome("failed", time.monotonic() - start, reason=f"its process ended with code {process.exitcode}")
    if outcome is None:
        process.kill()
        outcome = Outcome("failed", time.monotonic() - start, reason="its time was over")
    process.join()
    return outcome


def _child(place: str, device: torch.device, pipe: Any) -> None:
    prepare_device(device)
    pipe.send(run_check(lambda device: load(place)(device), device))
    pipe.close()


def load(place: str) -> Any:
    """Import a check. A package that it lacks shows when it is made."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"benchmarks.gpu_checks.{module}"), name)


def rows_of(name: str, outcome: Outcome) -> list[dict[str, Any]]:
    """Rows of the table: one for each figure of a check, or one with the reason why it has none."""
    facts = {"check": name, "result": outcome.result, "seconds": outcome.seconds}
    figures = outcome.figures.items() or [(outcome.reason.strip().splitlines()[-1] if outcome.reason else "", None)]
    return [{**facts, "figure": figure, "value": value} for figure, value in figures]


def main() -> int:
    options = arguments(__doc__ or "").parse_args()
    if not torch.cuda.is_available():
        print(
            "There is no GPU here: torch finds no CUDA device, so nothing was checked. Run this on a machine with one, "
            "with a build of torch for CUDA.",
            file=sys.stderr,
        )
        return NO_GPU
    device, rows, failed, start = torch.device("cuda", 0), [], [], time.monotonic()
    for name, place in CHECKS.items():
        outcome = run_in_process(place, device, SECONDS - (time.monotonic() - start))
        print(f"{outcome.result:8}{outcome.seconds:6.1f} s  {name}", flush=True)
        if outcome.result == "failed":
            failed.append(name)
            print(outcome.reason, file=sys.stderr, flush=True)
        rows += rows_of(name, outcome)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
    skipped = len({row["check"] for row in rows if row["result"] == "skipped"})
    counts = {"passed": len(CHECKS) - len(failed) - skipped, "failed": len(failed), "skipped": skipped}
    publish("GPU", counts, rows, options.json)
    return FAILED if failed else 0


if __name__ == "__main__":
    sys.exit(main())
