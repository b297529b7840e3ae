"""Tells what settings the results of a run were made with.

`config.yaml` is the configuration of the latest run, which may have made nothing yet; the manifests of the artefacts
record what they were made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alphafuse.storage.workspace import Workspace

SOURCES = {
    "decompose": "nullspace",
    "model": "model",
    "train": "model",
    "evaluate": "evaluation",
    "recommend": "recommendations",
}
"""Sections of the configuration, and the artefact whose inputs hold the section's settings."""


def made_with(settings: Mapping[str, Any], workspace: Workspace) -> dict[str, Any]:
    """The configuration of a workspace, overridden by the settings that its artefacts were made with.

    Raises:
        WorkspaceError: a manifest is damaged.
    """
    manifests = {name: workspace.artifact(name).manifest() for name in dict.fromkeys(SOURCES.values())}
    inputs = {name: manifest.inputs for name, manifest in manifests.items() if manifest is not None}
    made = {
        section: {**_section(settings, section), **_section(inputs.get(artifact, {}), section)}
        for section, artifact in SOURCES.items()
    }
    model = inputs.get("model", {})
    return {**settings, **made, **({"seed": model["seed"]} if "seed" in model else {})}


def _section(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of a tree; empty where there is none."""
    section = tree.get(name)
    return section if isinstance(section, Mapping) else {}
