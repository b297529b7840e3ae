"""The exported model suffices to score: rebuilt with plain torch, it gives the recommendations of the system."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from support.processes.gloo_workers import run_on_gloo
from support.workspaces.tiny_workspace import NUM_ITEMS, tiny_config, tiny_model, tiny_sequences, tiny_workspace

from alphafuse.recommenders.sasrec import SASRec
from jobs.stages import export, recommend


@pytest.mark.distributed
@pytest.mark.parametrize("workers", [1, 3])
def test_vectors_and_weights_rebuild_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    for job in (export, recommend):
        monkeypatch.setattr(job, "run_workers", run_on_gloo)
    monkeypatch.setattr(export, "ITEMS_PER_SHARD", 8)
    config, workspace = tiny_config(tmp_path, workers=workers), tiny_workspace(tmp_path)
    tiny_model(workspace, config)
    export.run(config, workspace, lambda event: None)
    recommend.run(config, workspace, lambda event: None)

    artifact = workspace.artifact("export")
    files = [file for file in artifact.require().files if file.name.startswith("items-")]
    tables = [artifact.read_table(file) for file in files]
    assert [item for table in tables for item in table["item_index"].to_pylist()] == list(range(NUM_ITEMS))
    item_ids = [item_id for table in tables for item_id in table["item_id"].to_pylist()]
    assert item_ids == [title for table in tables for title in table["title"].to_pylist()]  # the same here
    assert item_ids == [f"item {number}" for number in range(NUM_ITEMS)]
    vectors = torch.from_numpy(np.concatenate([np.array(table["vector"].to_pylist(), np.float32) for table in tables]))

    model = json.loads(artifact.folder.read_bytes("model.json"))
    weights = safetensors.torch.load(artifact.folder.read_bytes("weights.safetensors"))
    sasrec = SASRec(model["hidden_dim"], model["history_length"], model["backbone"]["num_layers"], 1, 0.0)
    sasrec.load_state_dict({name.removeprefix("backbone."): value for name, value in weights.items()})
    shards = workspace.artifact("recommendations").require().files
    for row in workspace.artifact("recommendations").read_table(shards[0]).to_pylist():
        history = tiny_sequences()[int(row["user_id"].split()[1])]
        with torch.no_grad():
            state = sasrec(vectors[history[-model["history_length"] :]][None])[0, -1]
        assert (model["similarity"], model["seed"]) == ("cosine", config.seed)
        scores = torch.nn.functional.cosine_similarity(vectors, state[None])
        best = [item_ids[item] for item in scores.argsort(descending=True).tolist() if item not in history]
        assert row["item_ids"] == best[:10]


@pytest.mark.distributed
def test_ranges_of_an_interrupted_export_do_not_remain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "run_workers", run_on_gloo)
    config, workspace = tiny_config(tmp_path, workers=2), tiny_workspace(tmp_path)
    tiny_model(workspace, config)
    export.run(config, workspace, lambda event: None)
    workspace.artifact("export").uncommit()
    export.run(tiny_config(tmp_path), workspace, lambda event: None)
    assert workspace.artifact("export").require().rows == NUM_ITEMS
