"""Feeds damaged files to everything that reads files, and fails on a traceback, a hang or a silent difference.

    python -m benchmarks.fuzz --minutes 10 --json benchmarks/results/fuzz.json

Cases come from Hypothesis: catalogs and logs in every format, configurations, and the files of a finished workspace,
with bits flipped, pieces cut out, repeated or turned round, values of wrong types or huge ones. Each must give what an
independent reader finds, or end in an error that names the file.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

from benchmarks.common.tables import arguments, publish
from benchmarks.damage import damaged_runs
from benchmarks.fuzzing import other_files, settings_files, source_files, workspace_files
from benchmarks.fuzzing.exploration import Tally, Target, explore

EXAMPLES = 50
"""Cases of a target that are drawn from one seed."""
MEMORY = 12 * 2**30
"""Bytes of address space: a reader that wants more because of a damaged length has a fault."""


def fuzz(targets: list[Target], minutes: float, first_seed: int) -> dict[str, Tally]:
    """Try the targets in turn until the minutes are over; returns what became of their cases."""
    tallies = {target.name: Tally() for target in targets}
    deadline, seed = time.monotonic() + 60 * minutes, first_seed
    while time.monotonic() < deadline:
        for target in targets:
            with tempfile.TemporaryDirectory() as folder:
                explore(target, seed, EXAMPLES, Path(folder), tallies[target.name])
        seed += 1
    return tallies


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="first seed; a fault names its own")
    options = parser.parse_args()
    with damaged_runs() as runs:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        readers = source_files, other_files, settings_files
        targets = [target for module in readers for target in module.TARGETS] + workspace_files.targets(runs)
        tallies = fuzz(targets, options.minutes, options.seed)
    rows = [
        {"what is read": name, "cases": tally.outcomes.total(), "right": tally.outcomes["right"],
         "refused with a reason": tally.outcomes["refused"], "faults": len(tally.faults)}
        for name, tally in tallies.items()
    ]  # fmt: skip
    publish("Damaged files", {"minutes": options.minutes, "first seed": options.seed}, rows, options.json)
    faults = [fault for tally in tallies.values() for fault in tally.faults]
    if faults:
        raise SystemExit("\n\n".join(faults))


if __name__ == "__main__":
    main()
