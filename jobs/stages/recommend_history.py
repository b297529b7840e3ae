"""The best items after one history that is written by hand.

Without a cluster nothing here imports Ray, which would take as long as the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from alphafuse.config import Config
from alphafuse.data.catalog_lookup import find_items
from alphafuse.data.users import single_history
from alphafuse.distributed.communicator import Communicator
from alphafuse.evaluation.evaluator import catalog_ranking
from alphafuse.evaluation.recommendations import Recommendations, Recommended, rank_users
from alphafuse.storage.workspace import Workspace
from alphafuse.training.trained_model import load_trained


def recommend_for_history(
    config: Config, workspace: Workspace, names: Sequence[str], top_k: int | None = None
) -> list[Recommended]:
    """The best items after a history of titles or item ids, oldest first (see `find_items`).

    Raises:
        DataError: a name is neither title nor id of an item.
        WorkspaceError: there is no trained model.
    """
    workspace.artifact("model").require()
    items = find_items(workspace.artifact("catalog"), names)
    count = top_k or config.recommend.top_k
    if config.ray.address is None:
        # All shards would lie on this machine anyway: one process holds them, without the wait for workers.
        return rank_for_history(config, workspace, items, count, Communicator(), torch.device("cpu"))
    from jobs.stages.recommend import recommend_on_cluster

    return recommend_on_cluster(config, workspace, items, count)


def rank_for_history(
    config: Config,
    workspace: Workspace,
    items: Sequence[int],
    top_k: int,
    communicator: Communicator,
    device: torch.device,
) -> list[Recommended]:
    """The best items after a history of item indices. A collective: every rank ranks its items."""
    model = load_trained(config, workspace, communicator, device)
    ranking = catalog_ranking(model, communicator, config.similarity)
    history = single_history(items)
    best, scores = rank_users(model, ranking, history, top_k, config.recommend.exclude_seen, 1, communicator)
    return Recommendations(workspace.artifact("catalog"), history, best, scores).of(0)
