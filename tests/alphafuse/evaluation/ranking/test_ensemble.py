"""Ensembles against sums of dense scores, on 1 and 2 ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.processes.multi_process import run_ranks
from support.workspaces.tiny_workspace import NUM_ITEMS, tiny_config, tiny_workspace

from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import AlphafuseError
from alphafuse.evaluation.ranking.catalog_ranking import CatalogRanking, Queries
from alphafuse.evaluation.ranking.ensemble import Ensemble, latest_items
from alphafuse.items.encoders.settings import IdConfig
from alphafuse.items.table_building import build_table
from alphafuse.storage.workspace import Workspace
from alphafuse.training.objectives.objective_building import build_objective
from alphafuse.training.scoring_model import ScoringModel

HISTORIES = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, -1, -1, -1, -1], [7, -1, -1, -1, -1, -1]])
TARGETS = torch.tensor([8, 0, 29])


def _configs(folder: Path) -> list[Config]:
    """Two methods with histories of different length."""
    text = tiny_config(folder)
    model = text.model.model_copy(update={"encoder": IdConfig(), "history_length": 6})
    return [text, text.model_copy(update={"model": model})]


def _model(config: Config) -> ScoringModel:
    workspace, communicator = Workspace(config.workspace), Communicator()
    objective = build_objective(config, workspace, communicator)
    table = build_table(config, workspace, objective.encoder, communicator, torch.device("cpu"))
    return ScoringModel(objective, table, config.model.history_length)


def _rank(configs: list[Config], similarities: list[str]) -> tuple[np.ndarray, np.ndarray]:
    ensemble = Ensemble([_model(config) for config in configs], similarities)
    assert (ensemble.num_items, ensemble.history_length) == (NUM_ITEMS, 6)
    ranking = CatalogRanking(ensemble.item_vectors(), ensemble.first_row, "dot", Communicator())
    ranked = ranking.rank(Queries(ensemble.hidden_states(HISTORIES), TARGETS), top_k=NUM_ITEMS)
    return ranked.ranks.numpy(), ranked.items.numpy()


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("similarities", [["cosine", "cosine"], ["dot", "dot"], ["cosine", "dot"]])
def test_scores_are_the_sums_of_the_members_scores(tmp_path: Path, world_size: int, similarities: list[str]) -> None:
    tiny_workspace(tmp_path)
    configs = _configs(tmp_path)
    expected = torch.zeros(len(HISTORIES), NUM_ITEMS, dtype=torch.float64)
    for config, similarity in zip(configs, similarities, strict=True):
        model = _model(config)
        for query, history in enumerate(HISTORIES):
            items = history[history >= 0][-config.model.history_length :]
            state, vectors = model.hidden_states(items[None])[0].double(), model.item_vectors().double()
            scores = vectors @ state
            if similarity == "cosine":
                scores = scores / (vectors.norm(dim=1) * state.norm())
            expected[query] += scores
    order = expected.argsort(dim=1, descending=True)
    for ranks, items in run_ranks(world_size, _rank, configs, similarities):
        assert items.tolist() == order.tolist()
        assert ranks.tolist() == ((order == TARGETS[:, None]).nonzero()[:, 1] + 1).tolist()


def test_members_must_have_the_same_items(tmp_path: Path) -> None:
    tiny_workspace(tmp_path)
    one, other = (_model(tiny_config(tmp_path)) for _ in range(2))
    other.num_items = 7
    with pytest.raises(AlphafuseError, match="must have the same items; their numbers of items are 30, 7"):
        Ensemble([one, other], ["cosine", "cosine"])


def test_each_member_sees_the_latest_items_that_it_takes() -> None:
    assert latest_items(HISTORIES, 3).tolist() == [[1, 5, 9], [2, 6, -1], [7, -1, -1]]
    assert latest_items(HISTORIES, 9).tolist() == HISTORIES.tolist()
