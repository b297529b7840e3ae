"""Time and memory of a training step against the number of items, beside what a user would pick instead.

    python -m benchmarks.step_time --items 10000 100000 1000000 5000000 --json benchmarks/results/step_time.json

In each round every case is built, warmed up and timed, one after the other, so that drift of the machine meets all of
them; ours in the environment of our workers, the others in the one that a user finds. A step's time is that of the
slowest rank. Memory is measured in processes of its own.
"""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.distributed as dist

from benchmarks.common.processes import memory_mib, peak_memory_mib, run_ranks
from benchmarks.common.step_cases import (
    BATCH,
    HIDDEN_DIM,
    HISTORY,
    LOSSES,
    NULL_DIM,
    Case,
    OurLookup,
    OurStep,
    PlainStep,
    StepItems,
    TorchRecLookup,
    draw_items,
)
from benchmarks.common.tables import arguments, publish

WARM_UP = 3
SLOW_ITEMS = 1_000_000
"""Number of items from which cases whose cost grows with the catalog are timed over `SLOW_STEPS` steps."""
SLOW_STEPS = 3


def cases(num_items: int, world_size: int, limits: dict[str, int]) -> dict[str, Callable[[int], Case]]:
    """The cases that are timed at this size, by name."""
    chosen: dict[str, Callable[[int], Case]] = {}
    for name, loss in LOSSES.items():
        if loss["name"] != "softmax" or num_items <= limits["softmax"]:
            chosen[f"ours, {name}"] = partial(OurStep, loss)
    if num_items <= limits["plain"]:
        chosen["nn.Embedding + Adam" + (" under DDP" if world_size > 1 else "")] = PlainStep
    untuned = "infonce, 64 uniform per target"
    chosen[f"{untuned}, environment as found"] = partial(OurStep, LOSSES[untuned])
    chosen["lookup + update, ours"] = OurLookup
    if limits["torchrec"]:
        chosen["lookup + update, TorchRec"] = TorchRecLookup
    return chosen


def is_ours(name: str) -> bool:
    """Tell whether a case runs in the environment of our workers."""
    return "ours" in name


def time_on_rank(
    ours: bool, sizes: list[int], steps: int, limits: dict[str, int]
) -> dict[tuple[str, int], list[float]]:
    """Step times in ms of our cases or of the others, by case and size."""
    times: dict[tuple[str, int], list[float]] = {}
    for num_items in sizes:
        batches = draw_items(num_items, dist.get_rank(), WARM_UP + steps)
        for name, build in cases(num_items, dist.get_world_size(), limits).items():
            if is_ours(name) == ours:
                case = build(num_items)
                grows = name.startswith("nn.") or "softmax" in name
                count = WARM_UP + (SLOW_STEPS if grows and num_items >= SLOW_ITEMS else steps)
                elapsed = [_time(case, batch, step) for step, batch in enumerate(batches[:count])]
                times[name, num_items] = elapsed[WARM_UP:]
                del case
                gc.collect()
    return times


def memory_on_rank(name: str, num_items: int, limits: dict[str, int]) -> float:
    """Largest memory of this fresh process while it builds a case and takes its first steps, above what it had, MiB."""
    idle = memory_mib()
    case = cases(num_items, dist.get_world_size(), limits)[name](num_items)
    for step, batch in enumerate(draw_items(num_items, dist.get_rank(), WARM_UP)):
        case(batch, step)
    return peak_memory_mib() - idle


def _time(case: Case, batch: StepItems, step: int) -> float:
    """Milliseconds of one step, of the slowest rank."""
    dist.barrier()
    start = time.perf_counter()
    case(batch, step)
    elapsed = torch.tensor(1e3 * (time.perf_counter() - start))
    dist.all_reduce(elapsed, op=dist.ReduceOp.MAX)
    return float(elapsed)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--items", type=int, nargs="+", default=[10**4, 10**5, 10**6, 5 * 10**6])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each round")
    parser.add_argument("--plain-items", type=int, default=10**6, help="largest catalog for the plain model")
    parser.add_argument("--softmax-items", type=int, default=10**5, help="largest catalog for the full softmax")
    parser.add_argument("--torchrec", action="store_true", help="beside TorchRec (make torchrec)")
    options = parser.parse_args()
    limits = {"plain": options.plain_items, "softmax": options.softmax_items, "torchrec": int(options.torchrec)}
    rows = []
    for world_size in options.ranks:
        times: dict[tuple[str, int], list[float]] = defaultdict(list)
        for _ in range(options.rounds):
            for ours in (True, False):
                arguments_of_rank = (ours, options.items, options.steps, limits)
                for key, elapsed in run_ranks(world_size, time_on_rank, *arguments_of_rank, tuned=ours)[0].items():
                    times[key] += elapsed
        for name, num_items in sorted(times, key=lambda key: list(times).index((key[0], options.items[0]))):
            memory = run_ranks(world_size, memory_on_rank, name, num_items, limits, tuned=is_ours(name))
            rows.append(
                {
                    "case": name,
                    "ranks": world_size,
                    "items": num_items,
                    "ms/step": median(times[name, num_items]),
                    "fastest": min(times[name, num_items]),
                    "MiB/rank": max(memory),
                }
            )
    settings = {
        "hidden_dim": HIDDEN_DIM, "null_dim": NULL_DIM, "history": HISTORY, "batch/rank": BATCH, "threads/rank": 1,
        "rounds": options.rounds, "steps/round": options.steps,
    }  # fmt: skip
    publish("Training step", settings, rows, options.json)


if __name__ == "__main__":
    main()
