"""A finished workspace survives every damage of its files. Here some of the cases; `benchmarks/damage.py` tries all."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from support.processes.multi_process import run_ranks

from benchmarks.damage import DAMAGES, DamagedRuns

CASES = 20


def _failures(folder: Path, address: str) -> tuple[set[str], dict[str, str]]:
    """The damages that were tried, and what went wrong by case."""
    ray.init(address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    try:
        runs = DamagedRuns(folder)
        cases = runs.cases()
        tried = cases[3 :: len(cases) // CASES]
        failures = {f"{case.file} {case.damage}": runs.failure(case) for case in tried}
    finally:
        ray.shutdown()
    return {case.damage for case in tried}, {case: failure for case, failure in failures.items() if failure}


@pytest.mark.distributed
def test_damaged_files_are_named_repaired_and_made_again(tmp_path: Path, ray_cluster: Cluster) -> None:
    """The stages run on the only rank of a group; the shared Ray does the tasks of the others."""
    ((damages, failures),) = run_ranks(1, _failures, tmp_path, ray_cluster.address)
    assert failures == {}
    assert damages == set(DAMAGES)
