"""The Slurm script, with replacements of Slurm, Ray and our own command that record how they are called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "cluster" / "launch" / "slurm.sh"

STAND_INS = {
    "scontrol": 'printf "node-a\\nnode-b\\nnode-c\\n"',
    # The command that runs on a node comes after the options.
    "srun": 'while [[ "$1" == --* ]]; do [[ "$1" != --nodelist=* ]] || export NODE="${1#*=}"; shift; done; exec "$@"',
    "hostname": 'echo "10.0.0.1 10.0.0.2"',
    "ray": """
        echo "$NODE $SRUN_CPUS_PER_TASK $* $(stat -c %a "$RAY_AUTH_TOKEN_PATH")" > "$CALLS/ray-$NODE"
        exec sleep 600
    """,
    # Waits for the nodes, like the real command.
    "python": f"""
        if [[ "$1" == -c ]]; then exec {sys.executable} "$@"; fi
        echo "$@" > "$CALLS/python"
        until [[ -s "$CALLS/ray-node-a" && -s "$CALLS/ray-node-b" && -s "$CALLS/ray-node-c" ]]; do sleep 0.1; done
    """,
    "alphafuse": 'printf "%s\\n" "$@" > "$CALLS/alphafuse"; cp "$RAY_AUTH_TOKEN_PATH" "$CALLS/token"; exit "$RESULT"',
}


@pytest.mark.parametrize("result", [0, 3])
def test_all_nodes_are_started_the_run_gets_its_arguments_and_nothing_is_left(tmp_path: Path, result: int) -> None:
    for folder in ("bin", "calls", "home"):
        (tmp_path / folder).mkdir()
    for name, body in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "CALLS": str(tmp_path / "calls"),
        "RESULT": str(result),
        "SLURM_JOB_ID": "123",
        "SLURM_JOB_NODELIST": "node-[a-c]",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
    }
    config = "it's mine.yaml"
    command = ["bash", SCRIPT, config, "--set", "train.resources.workers=16"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == result, done.stderr

    calls = {path.name: path.read_text().splitlines() for path in (tmp_path / "calls").iterdir()}
    assert calls["alphafuse"] == [
        "run",
        config,
        "--set",
        "train.resources.workers=16",
        "--set",
        "ray.address=10.0.0.1:20123",
    ]
    assert calls["python"] == ["-m cluster.launch.await_nodes 10.0.0.1:20123 3"]
    started = [calls[f"ray-{node}"] for node in ("node-a", "node-b", "node-c")]
    common = "--num-cpus=16 --num-gpus=4 --disable-usage-stats 600"
    head = "--head --node-ip-address=10.0.0.1 --port=20123 --dashboard-host=127.0.0.1"
    assert started[0] == [f"node-a 16 start --block {head} {common}"]
    assert started[1:] == [
        [f"{node} 16 start --block --address=10.0.0.1:20123 {common}"] for node in ("node-b", "node-c")
    ]

    (token,) = calls["token"]
    assert len(token) == 64
    assert not any(token in line for name, lines in calls.items() if name != "token" for line in lines)
    assert token not in done.stdout + done.stderr
    assert not list((tmp_path / "home").iterdir())  # the token is gone


def test_without_a_configuration_it_says_how_it_is_called() -> None:
    done = subprocess.run(["bash", SCRIPT], capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 2
    assert done.stderr.startswith("usage: sbatch")
