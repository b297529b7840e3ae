"""Finds the paths in a configuration that exist on this machine alone, and not on a cluster of other machines; and
checks those that both can read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from alphafuse.config import Config
from alphafuse.errors import ClusterError
from alphafuse.inputs import inputs_of
from alphafuse.stages import Stage
from alphafuse.storage.filesystem.folder import resolve

_ON_MACHINES = ("file", "local", "package", "hf")
"""Schemes of what each machine of a cluster has for itself."""


def absolute(config: Config) -> Config:
    """Make the relative paths of a configuration absolute, since a job runs in another folder.

    `package://…` stays as it is, and means the package on the cluster.
    """
    model = os.path.abspath(config.embed.model) if os.path.isdir(config.embed.model) else config.embed.model
    users, monitoring = config.recommend.users, config.monitoring
    tensorboard = monitoring.tensorboard
    if tensorboard is not None and tensorboard.folder is not None:
        tensorboard = tensorboard.model_copy(update={"folder": resolve(tensorboard.folder)})
    targets = None if monitoring.targets is None else resolve(monitoring.targets)
    parent = None if config.update.parent is None else resolve(config.update.parent)
    return config.model_copy(
        update={
            "workspace": resolve(config.workspace),
            "registry": None if config.registry is None else resolve(config.registry),
            "data": config.data.model_copy(update={"folder": resolve(config.data.folder)}),
            "embed": config.embed.model_copy(update={"model": model}),
            "update": config.update.model_copy(update={"parent": parent}),
            "recommend": config.recommend.model_copy(update={"users": None if users is None else resolve(users)}),
            "monitoring": monitoring.model_copy(update={"tensorboard": tensorboard, "targets": targets}),
        }
    )


def local_paths(config: Config) -> dict[str, str]:
    """Paths, by setting, of everything that a run reads or writes on the disks of this machine. `monitoring.targets` is
    not included, since it belongs to the machine that runs the stages.

    Args:
        config: result of `absolute`.
    """
    data, embed, tensorboard = config.data, config.embed, config.monitoring.tensorboard
    in_data_folder = {
        "data.catalog.path": data.catalog.path,
        "data.interactions.path": data.interactions.path,
        "data.split.path": data.split.path,
        "embed.precomputed": embed.precomputed,
        "embed.precomputed_ids": embed.precomputed_ids,
    }
    paths = {"workspace": config.workspace, "recommend.users": config.recommend.users, "registry": config.registry}
    paths["update.parent"] = config.update.parent
    if tensorboard is not None:
        paths["monitoring.tensorboard.folder"] = tensorboard.folder
    paths |= {
        key: path if path is None or "://" in path else resolve(path, data.folder)
        for key, path in in_data_folder.items()
    }
    if os.path.isabs(embed.model):
        paths["embed.model"] = embed.model
    return {key: path for key, path in paths.items() if path is not None and "://" not in path}


def require_no_local_paths(config: Config) -> None:
    """Check that other machines can read and write all paths of the configuration.

    Args:
        config: result of `absolute`.

    Raises:
        ClusterError: some paths are on the disks of this machine.
    """
    paths = local_paths(config)
    if paths:
        listed = "\n".join(f"  {key}: {path}" for key, path in paths.items())
        raise ClusterError(
            f"the cluster is not this machine, and the configuration names files of this machine:\n{listed}\n"
            "Copy the data to where all machines reach it and give its URI (s3://…, gs://…, package://…); if they all "
            "share these folders, say so with file:///… in front of the path"
        )


def check_reachable_inputs(config: Config, stages: Sequence[Stage]) -> None:
    """Check what a run reads on other machines, as far as this machine can read it, too: object stores. Files, packages
    and data sets of the cluster's machines are checked by the job itself.

    Args:
        config: result of `absolute`.

    Raises:
        DataError: a source is missing, damaged, lacks columns, or has one of another type.
    """
    for each in inputs_of(config, stages):
        scheme, separator, _ = each.uri.partition("://")
        if separator and scheme not in _ON_MACHINES:
            with suppress(OSError, ImportError):  # this machine has no access, or not the library for this storage
                each.check()
