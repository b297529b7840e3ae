"""Which settings may be tuned: those that change the trained model, and not what it is measured by."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from alphafuse.config import Config
from alphafuse.config.grid import queries_of
from alphafuse.config.space import SearchSpace
from alphafuse.errors import ConfigError
from alphafuse.stages import TRAIN, needed_stages

MEASURING = ("monitor", "validate_every", "validation_targets")
"""Settings of `train` that say how trials are measured."""


def tunable(space: SearchSpace) -> SearchSpace:
    """The space without the settings that change nothing which is trained with its configuration, such as those of a
    null space that the encoder does not read: one space then serves several methods.

    Raises:
        ConfigError: a setting changes what trials are measured by, or it belongs to a stage before training and is no
            choice, so that the stage could not be shared; or no setting is left.
    """
    kept = {}
    for key, distribution in space.space.settings.items():
        variants = [space.configuration({key: value}) for value in distribution.ends]
        if fault := _fault(space.base, variants, distribution.choice is None):
            raise ConfigError(f"settings.{key}{space.place(['settings', key])}: {fault}")
        if not _alike([trained_from(config) for config in variants]):
            kept[key] = distribution
    if not kept:
        raise ConfigError(f"settings{space.place(['settings'])}: none of them changes what this configuration trains")
    return dataclasses.replace(space, space=space.space.model_copy(update={"settings": kept}))


def shared_variants(space: SearchSpace) -> list[Config]:
    """Configurations with all combinations of the settings that belong to stages before training. Combinations that
    the configuration refuses are left out: no trial has them."""
    choices = {
        key: distribution.ends
        for key, distribution in space.space.settings.items()
        if not _alike([_before_training(space.configuration({key: value})) for value in distribution.ends])
    }
    variants = []
    for values in itertools.product(*choices.values()):
        try:
            variants.append(space.configuration(dict(zip(choices, values, strict=True))))
        except ConfigError:
            continue
    return variants


def trained_from(config: Config) -> dict[str, Any]:
    """Everything of a configuration that a trial depends on, by the stages that it changes."""
    return {**_before_training(config), TRAIN.name: TRAIN.settings(config)}


def _fault(base: Config, variants: Sequence[Config], is_range: bool) -> str:
    """The reason why a setting with these variants may not be tuned; empty if it may."""
    if not _alike([_measured_by(config) for config in (base, *variants)]):
        return (
            "it changes the data or how trials are measured, so that they could not be compared: all trials answer the "
            "same validation queries, by `train.monitor`"
        )
    if is_range and not _alike([_before_training(config) for config in variants]):
        return (
            "it belongs to a stage before training, which is made once for each of its values before the first trial: "
            "give a `choice` of values"
        )
    return ""


def _measured_by(config: Config) -> dict[str, Any]:
    monitoring = config.train.model_dump(mode="json", include=set(MEASURING))
    return {**queries_of(config), "train": monitoring, "update": config.update.model_dump(mode="json")}


def _before_training(config: Config) -> dict[str, Any]:
    return {stage.name: stage.settings(config) for stage in needed_stages(config) if stage.is_shared}


def _alike(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)
