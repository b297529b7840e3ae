"""A hand-made workspace in which every stage before the report has committed something recognisable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors.numpy
from support.workspaces.tiny_workspace import tiny_config, tiny_workspace

from alphafuse.config import Config
from alphafuse.events import StageFinished, StageStarted
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from monitoring.run_log.event_log import EventLog

METRICS = {f"{name}@{k}": k / 1000 for name in ("hr", "ndcg", "mrr") for k in (1, 5, 10, 20, 50)}


def finished_workspace(folder: Path, odd: str) -> tuple[Config, Workspace]:
    """Write the workspace.

    Args:
        odd: text that takes the place of texts of the data: a title, a user's id, a reason.
    """
    config, workspace = tiny_config(folder), tiny_workspace(folder)
    for name in ("catalog", "sequences", "embeddings", "nullspace"):
        (folder / name / "manifest.json").unlink()
    workspace.artifact("catalog").commit(
        {"made by": "hand"}, {"items": 30, "duplicate_ids_dropped": 7, "empty_texts": 0}
    )
    targets = {"train": 12_345, "validation": 6, "test": 7}
    workspace.artifact("sequences").commit(
        {"made by": "hand"}, {"users": 24, "out_of_order": 48_603, "targets": targets}
    )
    encoder = {"engine": "vllm", "model": "org/model", "files": {"weights": "sha"}, "revision": None}
    reasons = {"quarantined_by_reason": {odd: 3}}
    embedded = {"items": 30, "quarantined": 3, "encoder": encoder, **reasons}
    workspace.artifact("embeddings").commit({"made by": "hand"}, embedded)
    arrays = {
        "mean": np.zeros(12),
        "basis": np.eye(12, 8),
        "eigenvalues": np.ones(8),
        "spectrum": np.arange(12.0, 0, -1),
    }
    numbers = {"embedding_dim": 12, "hidden_dim": 8, "row_dim": 5, "null_dim": 3, "method": "gram", "scale": 40.0}
    numbers |= {"standardize": True, "total_variance": 78.0, "retained_energy": 0.8719, "clamped": 0}
    nullspace = workspace.artifact("nullspace")
    made_by = {"made by": "hand"}
    nullspace.write_file("nullspace.safetensors", safetensors.numpy.save(arrays), fingerprint(made_by))
    nullspace.commit(made_by, numbers)
    history = [
        {"epoch": epoch, "loss": 9.0 / epoch, "validation": {"ndcg@20": 0.01 * epoch} if epoch != 2 else None}
        for epoch in (1, 2, 3)
    ]
    best = {"value": 0.03, "epoch": 3, "step": 9}
    training = {"history": history, "best": best, "stopped": "patience", "steps": 9, "world_size": 2}
    workspace.artifact("model").commit({"train": {"monitor": "ndcg@20", "learning_rate": 0.125}}, training)
    empty = {"queries": 0, **dict.fromkeys(METRICS)}
    evaluation = {
        "similarity": "cosine",
        "exclude_seen": False,
        "queries": 15_192,
        "num_items": 30,
        "overall": METRICS,
        "slices": {"items": {"head": {"queries": 9, **METRICS}}, "histories": {"long": empty}},
        "catalog": {
            **{
                f"{name}@{k}": 0.5
                for name in ("coverage", "average_popularity", "tail_share")
                for k in (1, 5, 10, 20, 50)
            },
            "target_average_popularity": 4.25,
            "target_tail_share": 0.125,
        },
        "examples": [
            {"user_id": odd, "history": [1, 2], "ranked": [3, 4, 5], "target": 4, "rank": 2},
            {"user_id": "second", "history": [7], "ranked": [3, 4, 5], "target": 9, "rank": 1_234},
            {"user_id": "third", "history": [7], "ranked": [11], "target": 11, "rank": 1},
        ],
        "shuffled_histories": {"overall": dict.fromkeys(METRICS, 0.0375), "slices": {}},
        "baselines": {"recent_popularity": {"overall": dict.fromkeys(METRICS, 0.0625), "slices": {}}},
    }
    artifact = workspace.artifact("evaluation")
    artifact.write_file("metrics.json", json.dumps(evaluation).encode(), fingerprint({}))
    artifact.commit({}, {})
    item = {"item_id": "1", "title": odd, "text": "a text", "score": 0.75}
    examples = [{"user_id": odd, "history": ["Heat"], "recommended": [item]}]
    workspace.artifact("recommendations").commit({}, {"examples": examples})
    log = EventLog(workspace)
    for event in (
        StageStarted("train", time=0.0),
        StageStarted("train", time=100.0),
        StageFinished("train", time=225.0),
    ):
        log(event)
    return config, workspace
