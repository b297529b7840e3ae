"""The run that `benchmarks.chaos` disturbs, in a process of its own.

    python -m benchmarks.disturbance.disturbed_run CONFIG ADDRESS LOG

The stages up to the evaluation, as `alphafuse run` takes them. Every event is appended to LOG, a JSON object per line:
the event log of the workspace keeps too little to tell how much was done again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from alphafuse.config import load_config
from alphafuse.events import Event
from alphafuse.stages import EVALUATE, needed_stages
from alphafuse.storage.workspace import Workspace
from jobs.pipeline import run_stages
from monitoring.run_log.event_log import NAMES, to_record


def main() -> None:
    path, address, log = sys.argv[1:]
    config = load_config(Path(path), [f"ray.address={address}"])
    with Path(log).open("a", buffering=1) as file:

        def listen(event: Event) -> None:
            if type(event) in NAMES:
                file.write(json.dumps(to_record(event)) + "\n")

        run_stages(config, Workspace(config.workspace), needed_stages(config, EVALUATE), listen)


if __name__ == "__main__":
    main()
