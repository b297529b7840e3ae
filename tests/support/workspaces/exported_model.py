"""Exports of a tiny model: any encoder with any backbone, in the workspace that training reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.processes.gloo_workers import without_ray
from support.workspaces.tiny_workspace import tiny_config, tiny_model, tiny_workspace

from alphafuse.config import Config, parse_config
from alphafuse.events import ignore
from alphafuse.storage.workspace import Workspace
from jobs.stages import export

DIFFUSION: dict[str, Any] = {"loss": {"name": "diffusion", "similarity": "dot", "num_negatives": 6}}
DREAMREC = {"name": "dreamrec", "timesteps": 40, "beta_range": [0.01, 0.4], "sampling_stride": 8}
"""Settings of `train` and of `model.backbone` for a diffusion of a few steps."""


def exported(
    folder: Path,
    model: dict[str, Any] | None = None,
    workers: int = 1,
    onnx: bool = False,
    index: bool = False,
    **train: Any,
) -> Config:
    """Export a model with random rows into the workspace `folder`; returns its configuration.

    Args:
        model: settings of the section `model`, in place of those of `tiny_config`.
        onnx, index: settings of `export`.
        train: settings of `train`.
    """
    tree = tiny_config(folder, workers=workers).model_dump(mode="json")
    tree["model"] |= model or {}
    tree["train"] |= train
    tree["export"] = {"onnx": onnx, "index": index}
    config, workspace = parse_config(tree), tiny_workspace(folder)
    tiny_model(workspace, config)
    with without_ray() as patch:
        patch.setattr(export, "ITEMS_PER_SHARD", 7)
        export.run(config, Workspace(config.workspace), ignore)
    return config
