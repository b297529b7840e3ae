"""Items that are held out: nothing but their text is known of them, whatever is trained beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from multi_process import run_ranks
from tiny_workspace import NUM_ITEMS, tiny_config, tiny_features, tiny_workspace

from alphafuse.collectives import Communicator
from alphafuse.config import Config
from alphafuse.events import ignore
from alphafuse.training.loop import Trainer
from alphafuse.training.model import load_trained
from alphafuse.workspace import Workspace, fingerprint

HELD_OUT = np.arange(NUM_ITEMS) % 5 == 2


def _train(config: Config) -> torch.Tensor:
    """Item vectors of all ranks after a training in which held-out items are negatives."""
    communicator, workspace = Communicator(), Workspace(config.workspace)
    Trainer(config, workspace, {"made by": "hand"}, communicator, torch.device("cpu"), ignore).run()
    return communicator.all_gather_rows(load_trained(config, workspace, communicator).item_vectors())[0]


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [1, 2])
def test_held_out_items_keep_the_vectors_of_their_texts(tmp_path: Path, world_size: int) -> None:
    workspace = tiny_workspace(tmp_path)
    popularity, inputs = workspace.artifact("popularity"), {"made by": "hand"}
    table = popularity.read_table("popularity.parquet").append_column("held_out", pa.array(HELD_OUT))
    popularity.write_table("popularity.parquet", table, fingerprint(inputs))
    popularity.commit(inputs)
    vectors, *_ = run_ranks(world_size, _train, tiny_config(tmp_path, loss={"name": "softmax"}))
    features = torch.from_numpy(tiny_features())
    assert torch.equal(vectors[HELD_OUT], features[HELD_OUT])
    assert (vectors[~HELD_OUT] != features[~HELD_OUT]).any(dim=1).all()
