"""The program of a job on the cluster: `python -m cluster.remote.job`, in a folder with configuration and request.

It prints what `alphafuse run` prints; this output is the log of the job.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import typer

from cluster.cli.arguments import end_like_ctrl_c, settings

CONFIG_FILE = "config.yaml"
REQUEST_FILE = "request.json"
ENTRYPOINT = "python -m cluster.remote.job"


def main() -> None:
    """Run the stages that the request names."""
    end_like_ctrl_c()
    # Imported before Ray starts its threads: imported later, torch sometimes dies in the drivers of jobs ("oneMKL FATAL
    # ERROR: Cannot load libtorch_cpu.so").
    import torch  # noqa: F401

    request = json.loads(Path(REQUEST_FILE).read_text(encoding="utf-8"))
    with settings(Path(CONFIG_FILE), None) as (config, workspace):
        from cluster.cli.running import print_results, run_with_progress

        print(f"workspace {workspace.folder.uri}", flush=True)
        run_with_progress(config, workspace, request["stages"], request["again"])
        print_results(workspace)


if __name__ == "__main__":
    try:
        main()
    except typer.Exit as end:  # there is no typer application around `main` that would exit
        sys.exit(end.exit_code)
