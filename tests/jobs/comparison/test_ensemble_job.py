"""The evaluation of two finished runs together, on 1 and 2 ranks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.processes.gloo_workers import run_on_gloo
from support.workspaces.tiny_workspace import tiny_config, tiny_model, tiny_workspace

from alphafuse.config import Config
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.evaluation.ranks import read_ranks
from alphafuse.events import ignore
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from jobs.comparison import ensemble_evaluation

pytestmark = pytest.mark.distributed


@pytest.fixture(autouse=True)
def _workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble_evaluation, "run_workers", run_on_gloo)


def _set_up(folder: Path, workers: int) -> tuple[list[Config], Workspace]:
    """Write two models with different seeds, and a workspace that borrows the data of the first."""
    members = []
    for seed in (1, 2):
        config = tiny_config(folder / str(seed), workers=workers).model_copy(update={"seed": seed})
        tiny_model(tiny_workspace(folder / str(seed)), config)
        members.append(config)
    workspace = Workspace(str(folder / "both"))
    workspace.borrow(dict.fromkeys(("catalog", "sequences", "popularity"), "../1"))
    return members, workspace


def _ranks(members: list[Config]) -> list[int]:
    """Rank of every test target by the sum of the cosines, in float64, without items seen before."""
    models = [load_trained(config, Workspace(config.workspace), Communicator()) for config in members]
    sequences = SequenceStore(Workspace(members[0].workspace)).read_all()
    ranks = []
    for user, position in zip(*sequences.targets("test"), strict=True):
        items = sequences.of(user)
        scores = 0
        for model in models:
            state = model.hidden_states(torch.tensor(items[max(0, position - 4) : position])[None]).double()
            scores = scores + torch.nn.functional.cosine_similarity(model.item_vectors().double(), state)
        higher = set((scores > scores[items[position]]).nonzero().flatten().tolist())
        ranks.append(1 + len(higher - set(items[:position].tolist())))
    return ranks


@pytest.mark.parametrize("workers", [1, 2])
def test_ranks_are_those_of_the_summed_scores(tmp_path: Path, workers: int) -> None:
    members, workspace = _set_up(tmp_path, workers)
    ensemble_evaluation.run(members, workspace, ignore)
    artifact, expected = workspace.artifact("evaluation"), _ranks(members)
    assert read_ranks(artifact, "rank")["rank"].to_pylist() == expected
    metrics = json.loads(artifact.folder.read_bytes("metrics.json"))
    assert metrics["similarity"] == "cosine + cosine"
    assert metrics["overall"]["hr@5"] == pytest.approx(np.mean(np.array(expected) <= 5))


def test_it_is_made_again_when_a_model_was(tmp_path: Path) -> None:
    members, workspace = _set_up(tmp_path, 1)
    assert ensemble_evaluation.run(members, workspace, ignore) is not None
    assert ensemble_evaluation.run(members, workspace, ignore) is None
    Workspace(members[1].workspace).artifact("model").clear()
    other = members[1].model_copy(update={"seed": 3})
    tiny_model(Workspace(other.workspace), other, made_by="other hands")
    assert ensemble_evaluation.run([members[0], other], workspace, ignore) is not None


def test_it_is_made_again_when_a_model_of_equal_inputs_has_other_weights(tmp_path: Path) -> None:
    members, workspace = _set_up(tmp_path, 1)
    ensemble_evaluation.run(members, workspace, ignore)
    again = Workspace(members[1].workspace)
    before = again.artifact("model").require().fingerprint
    again.artifact("model").clear()
    tiny_model(again, members[1].model_copy(update={"seed": 3}))
    assert again.artifact("model").require().fingerprint == before
    ensemble_evaluation.run(members, workspace, ignore)
    assert read_ranks(workspace.artifact("evaluation"), "rank")["rank"].to_pylist() == _ranks(members)
