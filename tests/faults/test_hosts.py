"""Training on hosts with addresses of their own, of which one is cut off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.faults import fault_injection as injection
from support.faults.fault_machines import DEADLINE_SECONDS
from support.faults.network_hosts import Hosts
from support.processes.gloo_workers import train_without_ray
from support.processes.multi_process import run_ranks
from support.processes.waiting import wait_until
from support.workspaces.tiny_workspace import tiny_config, tiny_workspace

from alphafuse.distributed.communicator import Communicator
from alphafuse.training.checkpoints.trained_model import load_trained


@pytest.mark.engine
@pytest.mark.timeout(1200)
def test_a_host_whose_link_is_cut_is_done_without(tmp_path: Path) -> None:
    results = []
    for name in ("alone", "hosts"):
        workspace, config = tiny_workspace(tmp_path / name), tiny_config(tmp_path / name, max_epochs=3)
        if name == "alone":
            run_ranks(1, train_without_ray, config)
        else:
            with Hosts(2) as hosts:
                _train_and_cut(hosts, tmp_path / name)
        workspace.artifact("model").verify()
        results.append(load_trained(config, workspace, Communicator()).item_vectors())
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-4)
    assert (tmp_path / "hosts" / "faults" / "attempts").read_text().split() == ["2", "1"]


def _train_and_cut(hosts: Hosts, folder: Path) -> None:
    environment = hosts.environment | {"PYTHONPATH": os.pathsep.join(sys.path)}
    program = [sys.executable, injection.__file__, str(folder), "2", hosts.address]
    with subprocess.Popen(program, env=environment) as driver:
        try:
            wait_until(
                lambda: list(folder.glob("checkpoints/*/manifest.json")) or driver.poll() is not None, DEADLINE_SECONDS
            )
            hosts.cut(1)
            assert driver.wait(timeout=900) == 0
        finally:
            driver.kill()
