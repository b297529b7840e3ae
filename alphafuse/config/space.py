"""A search space: settings that are tuned, each with a distribution, and the budget; and the file that describes it."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from alphafuse.config.base import Count, Positive, Section
from alphafuse.config.loading import (
    ConfigFile,
    apply_override,
    load_config,
    overridden_keys,
    parse_config,
    parse_section,
    read_tree,
)
from alphafuse.config.root import Config
from alphafuse.errors import ConfigError

Value = bool | int | float | str | None
"""A value of one setting."""
Settings = Mapping[str, Value]
"""Values by the dotted keys of their settings."""
KINDS = ("uniform", "log_uniform", "integers", "log_integers", "choice")


class Distribution(Section):
    """Values of one setting: exactly one of the keys."""

    uniform: tuple[float, float] | None = None
    """Numbers from the first to the second, all equally likely."""
    log_uniform: tuple[Positive, Positive] | None = None
    """Numbers from the first to the second, whose logarithms are equally likely."""
    integers: tuple[int, int] | None = None
    """Whole numbers from the first to the second, both included."""
    log_integers: tuple[Count, Count] | None = None
    """As `integers`, more of the small ones: their logarithms are equally likely."""
    choice: Annotated[tuple[Value, ...], Field(min_length=2)] | None = None
    """The values themselves, in any order."""

    @model_validator(mode="after")
    def _check(self) -> Distribution:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)} (found: {', '.join(given) or 'none'})")
        if self.choice is None and not self.ends[0] < self.ends[1]:
            raise ValueError(f"{self.kind}: the first end must be below the second one (found {list(self.ends)})")
        if self.choice is not None and len({json.dumps(value) for value in self.choice}) < len(self.choice):
            raise ValueError(f"choice: a value is given more than once (found {list(self.choice)})")
        return self

    @property
    def kind(self) -> str:
        """Name of the key that is given."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The smallest and the largest value, or all values of a choice."""
        values: tuple[Any, ...] = getattr(self, self.kind)
        return values

    def holds(self, value: object) -> bool:
        """Tell whether a value is one that may be drawn."""
        if self.choice is not None:
            return value in self.choice
        numbers = int if "integers" in self.kind else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool) and self.ends[0] <= value <= self.ends[1]

    @property
    def middle(self) -> Any:
        """The value between the ends, by logarithms where these are equally likely; the first one of a choice."""
        if self.choice is not None:
            return self.choice[0]
        low, high = self.ends
        middle = math.sqrt(low * high) if self.kind.startswith("log_") else (low + high) / 2
        return round(middle) if "integers" in self.kind else middle


class SpaceConfig(Section):
    """The settings that are tuned, how they are searched for, and the budget."""

    settings: Annotated[dict[str, Distribution], Field(min_length=1)]
    """Distributions by the settings' keys, as `--set` takes them."""
    trials: Count | None = None
    """Number of trainings, over all calls of the command; null: as many as `minutes` allow."""
    minutes: Positive | None = None
    """Time of the trainings, over all calls of the command; null: as much as `trials` need."""
    search: Literal["tpe", "random"] = "tpe"
    """`tpe`: values that are likely to be good by what earlier trials have shown (Bergstra et al. 2011); `random`:
    values drawn for each trial alone."""
    grace_period: Count = 5
    """Epochs that every trial trains before it may be stopped (ASHA, Li et al. 2020)."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """After `grace_period` epochs, and after this many times as many, again and again, a trial goes on if it is in the
    best n-th of those that have come so far."""
    parallel: Count = 1
    """Number of trials at a time, as far as the cluster has room for their workers."""

    @model_validator(mode="after")
    def _check(self) -> SpaceConfig:
        if self.trials is None and self.minutes is None:
            raise ValueError("give a budget: trials, minutes, or both")
        return self


@dataclass(frozen=True)
class SearchSpace:
    """A space over a configuration.

    Attributes:
        space: distributions and budget.
        base: the configuration whose settings are tuned.
        tree: plain values of the base.
        place: text on where keys of the space stand, for messages.
    """

    space: SpaceConfig
    base: Config
    tree: Mapping[str, Any]
    place: Callable[[Sequence[str]], str]

    def configuration(self, settings: Settings, workspace: str | None = None) -> Config:
        """The base with some settings changed.

        Args:
            workspace: workspace of the configuration; None: that of the base.

        Raises:
            ConfigError: the configuration refuses the values, alone or together.
        """
        return changed_config(self.tree, settings, workspace)

    def first_settings(self) -> dict[str, Value]:
        """The base's own values of the tuned settings; where the space does not hold one, the middle of its
        distribution."""
        values: dict[str, Value] = {}
        for key, distribution in self.space.settings.items():
            value: Any = self.base.model_dump(mode="json")
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            values[key] = value if distribution.holds(value) else distribution.middle
        return values


def changed_config(tree: Mapping[str, Any], settings: Settings, workspace: str | None = None) -> Config:
    """The configuration of a tree of plain values, with some settings changed (see `SearchSpace.configuration`)."""
    changed = copy.deepcopy(dict(tree))
    for key, value in settings.items():
        apply_override(changed, f"{key}={json.dumps(value)}")
    return parse_config(changed if workspace is None else {**changed, "workspace": workspace})


def load_space(path: str | Path, config: str | Path, overrides: Sequence[str] = ()) -> SearchSpace:
    """Read a space and the configuration whose settings it tunes.

    Overrides of keys that a space has change the space; others are settings of every trial, as `alphafuse run` takes
    them.

    Raises:
        ConfigError: a file cannot be read, a key or value is wrong, or the configuration refuses an end of a
            distribution or a choice, with its other settings as they are.
    """
    file = ConfigFile(path)
    tree = file.tree()
    if "settings" not in tree and "data" in tree:
        raise ConfigError(f"{path} is a configuration, not a search space: alphafuse tune CONFIG SPACE")
    of_space = [override for override in overrides if overridden_keys(override)[0] in SpaceConfig.model_fields]
    of_runs = [override for override in overrides if override not in of_space]
    for override in of_space:
        apply_override(tree, override)
    space = parse_section(SpaceConfig, tree, lambda keys: file.place(keys, of_space))
    base = load_config(config, of_runs)
    base_tree = read_tree(config)
    for override in of_runs:
        apply_override(base_tree, override)
    found = SearchSpace(space, base, base_tree, lambda keys: file.place(keys, of_space))
    for key, distribution in space.settings.items():
        for value in distribution.ends:
            try:
                found.configuration({key: value})
            except ConfigError as error:
                place = found.place(["settings", key])
                raise ConfigError(f"settings.{key}{place}: {json.dumps(value)} is refused: {error}") from error
    return found
