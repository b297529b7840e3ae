"""Memory of ranks as it is foretold, against what a table and its checkpoint take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from support.workspaces.tiny_workspace import HIDDEN_DIM, NULL_DIM, NUM_ITEMS, tiny_config, tiny_workspace

from alphafuse.config import NodeGroupConfig
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.encoders.base import build_encoder
from alphafuse.items.table_building import build_table
from alphafuse.training.checkpoints.table_rows import row_files
from jobs.execution.host_memory import rank_bytes, short_of_memory
from jobs.execution.placement import growing


def _cluster(monkeypatch: pytest.MonkeyPatch, *machines: dict[str, float]) -> None:
    nodes = [{"Alive": True, "NodeManagerAddress": "10.0.0.1", "Resources": machine} for machine in machines]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)


def test_bytes_are_those_of_a_table_and_its_checkpoint(tmp_path: Path) -> None:
    workspace, config = tiny_workspace(tmp_path), tiny_config(tmp_path)
    encoder = build_encoder(config, workspace)
    table = build_table(config, workspace, encoder, Communicator(), torch.device("cpu"))
    tensors = {"rows": table.trainable, "first": table.first_moment, "second": table.second_moment}

    rows, copy = rank_bytes(config, workspace)

    assert rows == 4 * NUM_ITEMS * (HIDDEN_DIM + 3 * NULL_DIM)
    assert rows == table.features.untyped_storage().nbytes()  # which holds all columns
    assert copy == sum(part.nbytes for file in row_files(0, tensors) for part in file.tensors.values())


@pytest.mark.parametrize(
    ("train", "rows", "copy"),
    [
        ({"workers": 4}, 8 * 4 * (HIDDEN_DIM + 3 * NULL_DIM), 8 * 12 * NULL_DIM),  # 8, 8, 7 and 7 items
        ({"workers": 4, "gpus": 1}, 0, 8 * 12 * NULL_DIM),
        ({"averaging": 0.9}, NUM_ITEMS * 4 * (HIDDEN_DIM + 4 * NULL_DIM), NUM_ITEMS * 16 * NULL_DIM),
    ],
)
def test_bytes_go_by_ranks_device_and_average(tmp_path: Path, train: dict[str, Any], rows: int, copy: int) -> None:
    assert rank_bytes(tiny_config(tmp_path, **train), tiny_workspace(tmp_path)) == (rows, copy)


def test_ranks_that_do_not_fit_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, config = tiny_workspace(tmp_path), tiny_config(tmp_path, workers=2)
    needed = sum(rank_bytes(config, workspace))

    _cluster(monkeypatch, {"CPU": 2.0, "memory": 2.0 * needed})
    assert short_of_memory(config, workspace) is None
    _cluster(monkeypatch, {"CPU": 2.0, "memory": 2.0 * needed - 1})
    assert "2 ranks keep 1.56e-06 GB each" in (short_of_memory(config, workspace) or "")
    assert "there is room for 1 of them" in (short_of_memory(config, workspace) or "")
    _cluster(monkeypatch, {"CPU": 1.0, "memory": 1.0 * needed}, {"CPU": 1.0, "memory": 1.0 * needed})
    assert short_of_memory(config, workspace) is None
    _cluster(monkeypatch, {"CPU": 2.0})  # not known
    assert short_of_memory(config, workspace) is None
    _cluster(monkeypatch, {"CPU": 2.0, "memory": 1.0 * needed})
    with growing({"cpu": NodeGroupConfig(max_nodes=1, cpus=2, gpus=0)}):
        assert short_of_memory(config, workspace) is None
