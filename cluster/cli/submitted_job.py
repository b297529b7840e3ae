"""Runs a submitted run on the cluster: `python -m cluster.cli.submitted_job`, in the job's working folder.

It prints what `alphafuse run` prints; this output is the log of the job.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import typer

from alphafuse.stages import find_stage
from cluster.cli.arguments import end_like_ctrl_c, settings
from cluster.remote.submission import CONFIG_FILE, REQUEST_FILE
from monitoring.terminal.safe_text import echo


def main() -> None:
    """Run the stages that the request names."""
    end_like_ctrl_c()
    # Imported before Ray starts its threads: imported later, torch sometimes dies in the drivers of jobs ("oneMKL FATAL
    # ERROR: Cannot load libtorch_cpu.so").
    import torch  # noqa: F401

    request = json.loads(Path(REQUEST_FILE).read_text(encoding="utf-8"))
    with settings(Path(CONFIG_FILE), None) as (config, workspace):
        from cluster.cli.running import print_results, run_with_progress

        echo(f"workspace {workspace.folder.uri}")
        again = request["again"]
        stages = [find_stage(name) for name in request["stages"]]
        run_with_progress(config, workspace, stages, find_stage(again) if again else None)
        print_results(workspace, config.registry)


if __name__ == "__main__":
    try:
        main()
    except typer.Exit as end:  # there is no typer application around `main` that would exit
        sys.exit(end.exit_code)
