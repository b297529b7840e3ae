"""The cost of watching a training step.

    python -m benchmarks.metric_cost --json benchmarks/results/metrics.json

Steps with nobody listening and steps with all metrics of a worker take turns, on ranks in the environment of our
workers, so that drift of the machine meets both; a step's time is that of the slowest rank. Since the difference is
smaller than the noise, all that a step does for its metrics is also timed alone: as many marks and counts as a real
step makes, the events, the metrics. Every 20th step the norm of the gradient is taken, what goes to the driver is made,
and the metrics are rendered as for a scrape: a twentieth of that is part of the cost of a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from prometheus_client import CollectorRegistry, generate_latest
from torch import nn

from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.step_timer import StepTimer
from alphafuse.recommenders.sasrec import SASRec
from alphafuse.training.reporter import StepReporter
from benchmarks.common.processes import run_ranks
from benchmarks.common.step_cases import BATCH, HIDDEN_DIM, HISTORY, LOSSES, NULL_DIM, OurStep, StepItems, draw_items
from benchmarks.common.tables import arguments, publish
from monitoring.metrics.worker_recorder import WorkerRecorder

WARM_UP = 5
REPORT_STEPS = 20
ALONE_STEPS = 400


@dataclass(frozen=True)
class Training:
    """Input of a step: `rows` histories of each rank, and the loss at one or all of their positions."""

    loss: dict[str, Any]
    positions: str
    rows: int

    @property
    def negatives(self) -> int:
        return self.loss["num_negatives"] * (1 if self.loss["negatives"] == "shared" else self.rows)


_SHARED = LOSSES["sampled softmax, 1,024 shared"]
CASES = {
    "sampled softmax, 1,024 shared, 64 windows (the default)": Training(_SHARED, "all", 64),
    "sampled softmax, 1,024 shared, 256 last positions": Training(_SHARED, "last", BATCH),
    "infonce, 64 uniform each, 256 last positions": Training(LOSSES["infonce, 64 uniform per target"], "last", BATCH),
}


class _CountingTimer(StepTimer):
    """A timer that counts how often a step calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.spans, self.counts = 0, 0

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        self.spans += 1
        with super().span(name):
            yield

    def count(self, name: str, amount: float) -> None:
        self.counts += 1
        super().count(name, amount)


class _Watched:
    """A step with all that a worker does for its metrics; `step` reports to the timer of the communicator."""

    def __init__(self, step: Callable[[StepItems, int], None], communicator: Communicator) -> None:
        self._step = step
        self._timer = communicator.timer
        self._registry = CollectorRegistry()
        self._reporter = StepReporter(communicator, torch.device("cpu"), WorkerRecorder(self._registry, "train"))

    def __call__(self, items: StepItems, number: int) -> None:
        self._step(next(self._timer.steps([items])), number)
        self._reporter.end_step(number, len(items.histories))
        if number % REPORT_STEPS == 0:
            self._reporter.report(number)
            generate_latest(self._registry)


def time_on_rank(name: str, num_items: int, steps: int) -> dict[str, list[float]]:
    """Milliseconds of each step, by case."""
    communicator = Communicator().timed(StepTimer())
    training = CASES[name]
    step = OurStep(training.loss, num_items, training.positions, communicator)
    cases: dict[str, Any] = {"not watched": step, "watched": _Watched(step, communicator)}
    times: dict[str, list[float]] = {case: [] for case in cases}
    drawn = draw_items(num_items, communicator.rank, WARM_UP + steps, training.rows)
    for number, items in enumerate(drawn, start=1):
        # The cases take turns at being first.
        for case in sorted(cases, reverse=bool(number % 2)):
            dist.barrier()
            start = time.perf_counter()
            cases[case](items, number)
            elapsed = torch.tensor(1e3 * (time.perf_counter() - start))
            dist.all_reduce(elapsed, op=dist.ReduceOp.MAX)
            times[case].append(float(elapsed))
    return {case: of_case[WARM_UP:] for case, of_case in times.items()} | _alone(name, num_items)


def _alone(name: str, num_items: int) -> dict[str, list[float]]:
    """Milliseconds that all the work for the metrics takes by itself in many steps, and in those that report."""
    counting = _CountingTimer()
    communicator = Communicator().timed(counting)
    training = CASES[name]
    (items,) = draw_items(num_items, 0, 1, training.rows)
    OurStep(training.loss, num_items, training.positions, communicator)(items, 0)
    spans, counts, timer = counting.spans, counting.counts, StepTimer()
    inverse = torch.randint(num_items, (training.rows * 2 * HISTORY + training.negatives,))
    gradients = [torch.rand_like(parameter) for parameter in SASRec(HIDDEN_DIM, HISTORY, 1, 1, 0.1).parameters()]

    def hollow(_: StepItems, number: int) -> None:
        for _span in range(spans):
            with timer.span("forward"):
                pass
        for _count in range(counts):
            timer.count("rows_served", 1.0)
        int((inverse < num_items // 2).sum())
        if number % REPORT_STEPS == 0:
            float(nn.utils.get_total_norm(gradients))

    watched = _Watched(hollow, Communicator().timed(timer))
    times: dict[str, list[float]] = {"alone": [], "report alone": []}
    for number in range(1, ALONE_STEPS + 1):
        start = time.perf_counter()
        watched(items, number)
        case = "alone" if number % REPORT_STEPS else "report alone"
        times[case].append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--items", type=int, default=10**5)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=200, help="timed steps of each case")
    options = parser.parse_args()
    rows = []
    for world_size in options.ranks:
        for name in CASES:
            times = run_ranks(world_size, time_on_rank, name, options.items, options.steps)[0]
            pairs = zip(times["watched"], times["not watched"], strict=True)
            alone = median(times["alone"]) + median(times["report alone"]) / REPORT_STEPS
            plain = median(times["not watched"])
            rows.append(
                {
                    "loss": name,
                    "ranks": world_size,
                    "not watched, ms": plain,
                    "watched, ms": median(times["watched"]),
                    "ratio in pairs": median(watched / other for watched, other in pairs),
                    "alone, ms": alone,
                    "alone / step": alone / plain,
                }
            )
    settings = {
        "items": options.items, "hidden_dim": HIDDEN_DIM, "null_dim": NULL_DIM, "history": HISTORY, "threads/rank": 1,
        "steps": options.steps,
    }  # fmt: skip
    publish("Cost of metrics", settings, rows, options.json)


if __name__ == "__main__":
    main()
