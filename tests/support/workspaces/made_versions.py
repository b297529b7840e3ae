"""Finished workspaces that are made by hand, of a few files and without torch, for registries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace


def made_workspace(folder: Path, mark: str = "", ndcg: float | None = 0.1, parent: str | None = None) -> Workspace:
    """A workspace with a model, an export whose content follows from `mark`, and an evaluation.

    Args:
        ndcg: what the evaluation measured; None: there is no evaluation.
        parent: fingerprint of the parent's model.
    """
    workspace = Workspace(str(folder))
    model: dict[str, Any] = {"made by": f"{folder.name} {mark}", **({"parent": parent} if parent else {})}
    _commit(workspace, "model", model, {"weights": mark.encode()}, {"history": [{"seconds": 2.0}, {"seconds": 3.0}]})
    inputs = {"model": fingerprint(model)}
    files = {"model.json": json.dumps({"versions": {"alphafuse": "0.1.0"}}).encode(), "vectors": mark.encode()}
    _commit(workspace, "export", inputs, files, {})
    if ndcg is not None:
        metrics = json.dumps({"overall": {"ndcg@10": ndcg}}).encode()
        _commit(workspace, "evaluation", inputs, {"metrics.json": metrics}, {})
    return workspace


def _commit(
    workspace: Workspace, name: str, inputs: dict[str, Any], files: dict[str, bytes], details: dict[str, Any]
) -> None:
    artifact = workspace.artifact(name)
    artifact.clear()
    for file, content in files.items():
        artifact.write_file(file, content, fingerprint(inputs))
    artifact.commit(inputs, details)
