"""The best items after one history that is written by hand, from the export of the workspace.

Nothing here imports Ray, which would take as long as the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from alphafuse.config import Config
from alphafuse.evaluation.recommendations import Recommended
from alphafuse.serving.recommender import load
from alphafuse.stages import EXPORT
from alphafuse.storage.workspace import Workspace


def recommend_for_history(
    config: Config, workspace: Workspace, names: Sequence[str], top_k: int | None = None
) -> list[Recommended]:
    """The best items after a history of titles or item ids, oldest first (see `Recommender.find_items`).

    Raises:
        DataError: a name is neither title nor id of an item.
        WorkspaceError: nothing was exported yet, or from another model or with other settings.
    """
    artifact = workspace.artifact("export")
    if not artifact.is_committed(EXPORT.inputs(config, workspace)):
        artifact.require()  # says which stage must run
    recommender = load(artifact.folder.uri)
    history = recommender.find_items(names)
    lists: list[list[Recommended]] = recommender.recommend(
        [history], top_k or config.recommend.top_k, config.recommend.exclude_seen
    )
    return lists[0]
