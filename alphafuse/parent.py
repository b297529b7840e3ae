"""Checks before an update begins that the model of its parent can be continued under the new configuration.

The parent is another workspace, which is only read. What depends on the data (the drift of the catalog, the files of
the language model) is checked by the stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alphafuse.config import Config
from alphafuse.errors import ConfigError
from alphafuse.stages import DECOMPOSE, EMBED
from alphafuse.storage.manifest import changed_inputs
from alphafuse.storage.workspace import Workspace

SEARCH = {"method", "seed", "power_passes", "oversampling"}
"""Settings of `decompose` that say how the directions are found, and not which."""
VECTORS = ("engine", "dtype", "pooling", "max_length", "dimensions", "prompt", "normalize", "storage_dtype")
"""Settings of `embed` that the identity of an encoder holds under the same names. The model is compared by its files,
in the stage `embed`."""


def check_parent(config: Config, workspace: Workspace) -> None:
    """Check that an update can continue the model of `update.parent`; does nothing for other runs.

    Raises:
        UnfinishedError: the parent has not finished what the update needs.
        ConfigError: the parent is the workspace itself, or settings differ on which its weights and rows depend.
    """
    if config.update.parent is None:
        return
    parent = workspace.other(config.update.parent)
    if parent.folder.uri == workspace.folder.uri:
        raise ConfigError(
            f"update.parent is the workspace itself ({workspace.folder.uri}): an update is written to a new one. Give "
            "another `workspace`"
        )
    needed = ["catalog", "model"]
    needed += EMBED.artifacts if EMBED.is_needed(config) else []
    needed += DECOMPOSE.artifacts if DECOMPOSE.is_needed(config) else []
    manifests = {name: parent.artifact(name).require() for name in needed}
    parent.require_origins("model")
    changes = _changes(config, {name: manifest.inputs for name, manifest in manifests.items()})
    if changes:
        shown = "; ".join(changes[:5]) + ("; …" if len(changes) > 5 else "")
        raise ConfigError(
            f"the model of {parent.folder.uri} cannot be continued, since it was made with other settings ({shown}). "
            "Give those of the parent, or train from scratch, with `alphafuse run` and without update.parent"
        )


def _changes(config: Config, inputs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Settings that differ from those of the parent, with both values.

    Args:
        inputs: inputs of the parent's artefacts, by name.
    """
    changes = changed_inputs(inputs["model"]["model"], config.model.model_dump(mode="json"), "model.")
    if "scale" in inputs["model"]:
        changes += changed_inputs({"scale": inputs["model"]["scale"]}, {"scale": config.decompose.scale}, "decompose.")
    if "nullspace" in inputs:
        before, now = inputs["nullspace"]["decompose"], config.decompose.result_settings()
        changes += changed_inputs(
            {name: value for name, value in before.items() if name not in SEARCH},
            {name: value for name, value in now.items() if name not in SEARCH},
            "decompose.",
        )
    if "embeddings" in inputs:
        encoder, settings = inputs["embeddings"]["encoder"], config.embed.result_settings()
        chosen = {name: settings[name] for name in VECTORS if settings[name] not in ("auto", None) and name in encoder}
        changes += changed_inputs({name: encoder[name] for name in chosen}, chosen, "embed.")
    return changes
