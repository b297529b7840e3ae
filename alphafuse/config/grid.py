"""A comparison: methods × seeds, each a run of its own; and the file that describes it."""

from __future__ import annotations

import copy
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from alphafuse.config.base import Count, Section
from alphafuse.config.loading import ConfigFile, apply_override, overridden_keys, parse_config, parse_section, read_tree
from alphafuse.config.root import Config
from alphafuse.errors import ConfigError

Settings = dict[str, Any] | tuple[str, ...]
"""A tree of sections, or KEY=VALUE texts as `--set` takes them."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
"""Name of a row, which is part of the name of its folder."""


class MethodConfig(Section):
    """One row of the comparison."""

    name: Name
    """Name of the row."""
    set: Settings = ()
    """Settings of the base configuration that the row changes. In a tree, a section that is chosen by its `name` is
    replaced as a whole by one with another `name`; KEY=VALUE texts change single values."""


class EnsembleConfig(Section):
    """A row that combines methods: their runs with the same seed are ranked by the sum of their scores."""

    name: Name
    """Name of the row."""
    of: Annotated[tuple[str, ...], Field(min_length=2)]
    """Names of the methods in the ensemble, each once."""


class GridConfig(Section):
    """The whole comparison."""

    base: str
    """Configuration of a run; a relative path starts from the folder of the grid's file."""
    workspace: str
    """Folder or URI that holds the workspaces of all runs, and the table."""
    set: Settings = ()
    """Settings of the base configuration that are changed for all methods."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (22, 23, 24)
    """Seeds of the trainings. Data are split, and texts decomposed, with the seed of the base configuration."""
    methods: Annotated[tuple[MethodConfig, ...], Field(min_length=1)]
    ensembles: tuple[EnsembleConfig, ...] = ()
    against: str | None = None
    """Row that the others are tested against, in upper or lower case; null: alphafuse, or else the first row."""
    metrics: Annotated[tuple[str, ...], Field(min_length=1)] = ("ndcg@10", "hr@10")
    """Columns of the table: hr@K, ndcg@K, mrr@K with K in `evaluate.cutoffs`."""
    parallel: Count = 1
    """Number of runs at a time, as far as the cluster has room for their workers."""

    @model_validator(mode="after")
    def _check(self) -> GridConfig:
        methods = [method.name for method in self.methods]
        _require_once("name", [row.lower() for row in self.rows])
        _require_once("seed", self.seeds)
        _require_once("metric", self.metrics)
        for ensemble in self.ensembles:
            _require_known(f"ensemble {ensemble.name}", ensemble.of, methods)
            _require_once(f"member of the ensemble {ensemble.name}", ensemble.of)
        if self.against is not None and self._row(self.against) is None:
            _require_known("against", [self.against], self.rows)
        return self

    @property
    def rows(self) -> list[str]:
        """Names of the methods and the ensembles, in the order of the table."""
        return [*(method.name for method in self.methods), *(ensemble.name for ensemble in self.ensembles)]

    @property
    def reference(self) -> str:
        """The row that the others are tested against."""
        return self._row(self.against or "alphafuse") or self.methods[0].name

    def _row(self, name: str) -> str | None:
        """The row called `name`, in upper or lower case; None where there is none."""
        return next((row for row in self.rows if row.lower() == name.lower()), None)


def load_grid(path: str | Path, overrides: Sequence[str] = ()) -> tuple[GridConfig, dict[str, Config]]:
    """Read a grid, and make the configuration of each method from the base and the method's settings.

    Overrides of keys that a grid has change the grid; others are settings of every run, as `alphafuse run` takes them.

    The configurations have the seed of the base and the workspace of the grid; `data.split.seed` and `decompose.seed`
    are set, so that split and null space do not follow the seed of a training.

    Raises:
        ConfigError: a file cannot be read, a key or value is wrong, or the methods would answer different queries.
    """
    file = ConfigFile(path)
    tree = file.tree()
    if "methods" not in tree and "data" in tree:
        raise ConfigError(f"{path} is the configuration of one run, not a grid: alphafuse run {shlex.quote(str(path))}")
    of_grid = [override for override in overrides if overridden_keys(override)[0] in GridConfig.model_fields]
    of_runs = [override for override in overrides if override not in of_grid]
    for override in of_grid:
        apply_override(tree, override)
    grid = parse_section(GridConfig, tree, lambda keys: file.place(keys, of_grid))
    base = Path(path).parent / grid.base
    configs = {}
    for method in grid.methods:
        settings = read_tree(base)
        try:
            for changes in (grid.set, method.set, tuple(of_runs)):
                apply_settings(settings, changes)
            settings["workspace"] = grid.workspace
            configs[method.name] = _with_shared_seeds(parse_config(settings))
        except ConfigError as error:
            raise ConfigError(f"method {method.name}: {error}") from error
    _require_comparable(grid, configs)
    return grid, configs


def queries_of(config: Config) -> dict[str, Any]:
    """The settings that say which queries a run answers, from which items, and how its answers are measured."""
    data = config.data.model_dump(exclude={"shard_rows": True, "catalog": {"text", "title"}})
    measuring = config.evaluate.model_dump(exclude={"cutoffs", "similarity", "query_batch"})
    return {"seed": config.seed, "data": data, "evaluate": measuring}


def apply_settings(tree: dict[str, Any], settings: Settings) -> None:
    """Apply a row's settings to a tree of plain values, in place."""
    if isinstance(settings, dict):
        _merge(tree, settings)
    else:
        for override in settings:
            apply_override(tree, override)


def _merge(tree: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        before = tree.get(key)
        if isinstance(before, dict) and isinstance(value, dict) and value.get("name") in (None, before.get("name")):
            _merge(before, value)
        else:
            tree[key] = copy.deepcopy(value)  # a copy, since other methods may share the settings


def _with_shared_seeds(config: Config) -> Config:
    """The configuration with seeds of its own for split and decomposition, which the runs share."""
    split = config.data.split.model_copy(update={"seed": config.split_seed})
    data = config.data.model_copy(update={"split": split})
    decompose = config.decompose.model_copy(update={"seed": config.decompose_seed})
    return config.model_copy(update={"data": data, "decompose": decompose})


def _require_comparable(grid: GridConfig, configs: Mapping[str, Config]) -> None:
    """Check that all methods answer the same queries, from the same items, and are measured alike."""
    asked = {}
    for name, config in configs.items():
        asked[name] = queries_of(config)
        valid = config.evaluate.metrics
        for metric in grid.metrics:
            if metric not in valid:
                raise ConfigError(f"metrics: {metric!r} is not measured by {name}; valid: {', '.join(valid)}")
    first, *others = asked
    for name in others:
        for key, value in asked[first].items():
            if asked[name][key] != value:
                raise ConfigError(
                    f"the methods {first} and {name} differ in {key}: what is compared must answer the same queries. "
                    "Methods may differ in the catalog's texts, embed, decompose, model, train, evaluate.similarity"
                )


def _require_once(kind: str, values: Iterable[object]) -> None:
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"the {kind} {value!r} is given more than once")


def _require_known(where: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: there is no {name!r}; there are {', '.join(known)}")
