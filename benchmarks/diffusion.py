"""The cost of generating an item vector by diffusion (DreamRec), beside a plain SASRec state.

python -m benchmarks.diffusion --json benchmarks/results/diffusion.json
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from alphafuse.recommenders.diffusion import Diffusion, remaining_signal
from alphafuse.recommenders.dreamrec import DreamRec
from alphafuse.recommenders.sasrec import SASRec
from benchmarks.common.tables import arguments, publish


def cases(dim: int, length: int, timesteps: int, strides: list[int]) -> dict[str, Callable[[torch.Tensor], Any]]:
    """States of histories [queries, length, dim] → [queries, dim], by the name of what computes them."""
    torch.manual_seed(0)
    diffusion = Diffusion(remaining_signal("linear", timesteps, (1e-4, 0.02)))
    sasrec = SASRec(dim, length, num_layers=1, num_heads=1, dropout=0.1).eval()

    def condition(histories: torch.Tensor) -> torch.Tensor:
        return sasrec(histories, torch.full((len(histories),), length - 1))

    def generating(stride: int) -> Callable[[torch.Tensor], Any]:
        model = DreamRec(sasrec, dim, diffusion, guidance=5.0, stride=stride, seed=0, condition_dropout=0.1).eval()
        return lambda histories: model.generate(condition(histories))

    dreamrec = {f"DreamRec, every {stride}th of {timesteps} steps": generating(stride) for stride in strides}
    return {"SASRec": condition, **dreamrec}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--queries", type=int, default=512, help="queries of a batch")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--length", type=int, default=10)
    parser.add_argument("--timesteps", type=int, default=2000)
    parser.add_argument("--strides", type=int, nargs="+", default=[100, 20])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    histories = torch.randn(options.queries, options.length, options.dim)
    measured = cases(options.dim, options.length, options.timesteps, options.strides)
    times = defaultdict(list)
    with torch.no_grad():
        for _ in range(options.rounds + 1):  # the first one warms up
            for name, case in measured.items():
                start = time.perf_counter()
                case(histories)
                times[name].append(time.perf_counter() - start)
    per_query = {name: 1000 * median(seconds[1:]) / options.queries for name, seconds in times.items()}
    rows = [
        {"case": name, "ms per query": milliseconds, "ratio": milliseconds / per_query["SASRec"]}
        for name, milliseconds in per_query.items()
    ]
    settings = {key: getattr(options, key) for key in ("queries", "dim", "length", "rounds")}
    publish("Generating item vectors, one thread", settings, rows, options.json)


if __name__ == "__main__":
    main()
