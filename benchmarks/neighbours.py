"""Share of an item's nearest neighbours by text that are still among its nearest by trained vector (cosine, both).

Measured for popular and for rare items: what training keeps of the language model's knowledge.

python -m benchmarks.neighbours runs/compare-toys/AlphaFuse-22 runs/compare-toys/LLMInit-22
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from alphafuse.config import load_config
from alphafuse.data.popularity import load_popularity
from alphafuse.distributed.communicator import Communicator
from alphafuse.evaluation.ranking.top_lists import TopLists
from alphafuse.storage.matrices import iterate_rows
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from benchmarks.common.tables import arguments, publish

TILE_ROWS = 8192

Tiles = Iterator[tuple[int, torch.Tensor]]
"""Rows of a matrix [items, dim], each with the number of its first row, one after the other."""


def nearest(queries: torch.Tensor, own: np.ndarray, tiles: Tiles, count: int) -> np.ndarray:
    """The `count` items with the highest cosine, without the item itself: int64 [queries, count].

    Args:
        queries: [queries, dim].
        own: [queries], the item that each query is.
        tiles: vectors of all items.
    """
    lists = TopLists(len(queries), count + 1, queries.device)
    directions = normalize(queries, dim=1)
    for first, rows in tiles:
        lists.add(directions @ normalize(rows, dim=1).T, first)
    items = lists.result()[0].numpy()
    others = items != own[:, None]
    others[others.all(axis=1), -1] = False  # many are as near as the item itself: the last one goes
    return items[others].reshape(len(own), count)


def kept(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Share of the neighbours [items, count] that are still there, in any order: [items]."""
    return (before[:, :, None] == after[:, None, :]).any(axis=2).mean(axis=1)


def by_text(workspace: Workspace, chosen: np.ndarray, count: int) -> np.ndarray:
    """Neighbours of the chosen items, in ascending order, by their language embeddings."""
    artifact = workspace.artifact("embeddings")
    num_items = artifact.require().rows

    def tiles() -> Tiles:
        for first, block, _ in iterate_rows(artifact, "embedding", 0, num_items, TILE_ROWS):
            yield first, torch.from_numpy(block).float()

    queries = [rows[chosen[(first <= chosen) & (chosen < first + len(rows))] - first] for first, rows in tiles()]
    return nearest(torch.cat(queries), chosen, tiles(), count)


def by_vector(run: Path, chosen: np.ndarray, count: int) -> np.ndarray:
    """Neighbours of the chosen items by the vectors that a finished training gave them."""
    config = load_config(run / "config.yaml")
    vectors = load_trained(config, Workspace(str(run)), Communicator()).item_vectors()
    tiles = ((first, vectors[first : first + TILE_ROWS]) for first in range(0, len(vectors), TILE_ROWS))
    return nearest(vectors[torch.from_numpy(chosen)], chosen, tiles, count)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("runs", nargs="+", type=Path, help="workspaces of finished trainings on the same catalog")
    parser.add_argument("--count", type=int, default=10, help="neighbours of an item")
    parser.add_argument("--items", type=int, default=2000, help="number of items, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    workspaces = [Workspace(str(run)) for run in options.runs]
    embedded = [each for each in workspaces if each.artifact("embeddings").manifest() is not None]
    if not embedded:
        parser.error("none of the runs has language embeddings")
    popularity = load_popularity(workspaces[0])
    drawn = np.random.default_rng(options.seed).permutation(len(popularity))[: options.items]
    chosen = np.sort(drawn)
    # Popular: the drawn items above the median of their interactions; rare: the others.
    popular = popularity[chosen] > np.median(popularity[chosen])
    text = by_text(embedded[0], chosen, options.count)
    rows: list[dict[str, Any]] = []
    for run in options.runs:
        share = kept(text, by_vector(run, chosen, options.count))
        rows.append(
            {"run": run.name, "kept": float(share.mean()), "kept, popular": float(share[popular].mean()),
             "kept, rare": float(share[~popular].mean())}
        )  # fmt: skip
    settings = {"items": len(chosen), "of": len(popularity), "neighbours": options.count,
                "by chance": options.count / (len(popularity) - 1)}  # fmt: skip
    publish("Share of the text's neighbours that the trained vectors keep", settings, rows, options.json)


if __name__ == "__main__":
    main()
