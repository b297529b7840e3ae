"""A run from Python, `alphafuse.Run`: the stages of the command line on tables of this process.

Owns how tables and settings become a configuration, and how results come back; the work is that of `jobs.pipeline`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alphafuse.config import Config, parse_config
from alphafuse.config.grid import apply_settings
from alphafuse.config.loading import read_tree
from alphafuse.data.frames import as_given, to_arrow
from alphafuse.errors import ConfigError
from alphafuse.inputs import check_inputs
from alphafuse.serving.recommender import Recommender, load
from alphafuse.stages import EVALUATE, EXPORT, RECOMMEND, TRAIN, Stage, find_stage, needed_stages
from alphafuse.storage.workspace import Workspace
from cluster.remote.credential_check import require_no_credentials
from jobs.execution.ray_connection import connected
from jobs.execution.worker_group import Ranks, keeping_ranks
from jobs.pipeline import run_stages
from monitoring.terminal.run_console import RunConsole

SOURCES = "sources"
"""Folder of the workspace with the tables that a run was given."""


class Run:
    """A run of the stages from this process; progress is printed.

    Every method continues where the workspace stands, and skips what is finished; what was made from other data or
    settings is refused, unless `redo` says that it is to be made again. As a context (`with alphafuse.Run(…) as run`)
    all methods share one connection to Ray and its workers; otherwise each of them starts and ends its own.

    Args:
        config: YAML file, or its content as plain values; None: `settings` are all.
        settings: sections and keys of the configuration, which change those of `config`:
            `workspace="runs/shop", train={"max_epochs": 3}`. The paths of sources may be left out where `fit` gets
            tables.

    Attributes:
        config: the configuration.
        workspace: the workspace.

    Raises:
        ConfigError: a key or value is wrong, or holds credentials.
    """

    def __init__(self, config: str | os.PathLike[str] | Mapping[str, Any] | None = None, /, **settings: Any) -> None:
        if isinstance(config, str | os.PathLike):
            tree = read_tree(os.fspath(config))
        else:
            tree = copy.deepcopy(dict(config or {}))
        apply_settings(tree, settings)
        for source in ("catalog", "interactions"):
            tree.setdefault("data", {}).setdefault(source, {}).setdefault("path", "")
        require_no_credentials(tree)
        self.config: Config = parse_config(tree)
        self.workspace = Workspace(self.config.workspace)
        self._frame: Any = None  # a table of the kind that results come back as
        self._stack = ExitStack()
        self._ranks: Ranks | None = None

    def __enter__(self) -> Run:
        self._stack.enter_context(connected(self.config.ray))
        self._ranks = self._stack.enter_context(keeping_ranks())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
        self._ranks = None

    def fit(self, interactions: Any = None, items: Any = None, redo: str | None = None) -> Run:
        """Run the stages from `prepare` to `train`.

        Args:
            interactions, items: tables of pandas, pyarrow or another package with the interface of Arrow, whose columns
                `data.interactions` and `data.catalog` name; they are written to the workspace. None: the files that
                these sections name.
            redo: name of a stage; it and all later ones are made again.

        Raises:
            AlphafuseError: as the command `alphafuse run`.
        """
        given = {"interactions": interactions, "catalog": items}
        self.config = _with_paths(
            self.config, {name: self._write(name, frame) for name, frame in given.items() if frame is not None}
        )
        self._frame = self._frame if interactions is None else interactions
        if self._ranks is not None:
            self._ranks.end_group()
        self._run(needed_stages(self.config, TRAIN), find_stage(redo) if redo else None)
        return self

    def evaluate(self, redo: bool = False) -> dict[str, Any]:
        """Run the stage `evaluate`; returns its metrics, the content of `evaluation/metrics.json`: `overall`, `slices`,
        `catalog`."""
        self._run([EVALUATE], EVALUATE if redo else None)
        metrics: dict[str, Any] = json.loads(self.workspace.artifact("evaluation").read_file("metrics.json"))
        return metrics

    def recommend(self, redo: bool = False) -> Any:
        """Run the stage `recommend`; returns the best items of its users, all in memory: a table of pandas where `fit`
        got one, else of pyarrow, with the columns user_id, item_ids, titles and scores. For single histories see
        `export`."""
        self._run([RECOMMEND], RECOMMEND if redo else None)
        artifact = self.workspace.artifact("recommendations")
        return as_given(pa.concat_tables(map(artifact.read_table, artifact.require().files)), self._frame)

    def export(self, redo: bool = False) -> Recommender:
        """Run the stage `export`; returns the model as an object."""
        self._run([EXPORT], EXPORT if redo else None)
        return load(self.workspace.folder.uri)

    def _run(self, stages: Sequence[Stage], again: Stage | None) -> None:
        if self.config.ray.address is None:
            check_inputs(self.config, stages)
        with RunConsole(sys.stdout, self.config.train.monitor, failures=False) as console:
            run_stages(self.config, self.workspace, stages, console, again)

    def _write(self, name: str, frame: Any) -> str:
        """Write a table that was given, and return its path. Its name tells its content: tables of other runs stay."""
        sink = pa.BufferOutputStream()
        # Without metadata, the same rows give the same file, whichever package they come from.
        pq.write_table(to_arrow(frame, name).replace_schema_metadata(None), sink, compression="zstd")
        content = sink.getvalue()
        file = f"{name}-{hashlib.sha256(content).hexdigest()[:12]}.parquet"
        folder = self.workspace.folder / SOURCES
        if not folder.exists(file):  # its time of modification is part of what a large file is known by
            folder.write_bytes(file, content)
        return f"{folder.uri}/{file}"


def _with_paths(config: Config, paths: Mapping[str, str]) -> Config:
    """The configuration with the paths of sources, by the names of their sections.

    Raises:
        ConfigError: a source has no path.
    """
    sources = {}
    for name in ("catalog", "interactions"):
        section = getattr(config.data, name)
        sources[name] = section.model_copy(update={"path": paths.get(name, section.path)})
        if not sources[name].path:
            argument = "items" if name == "catalog" else name
            raise ConfigError(f"there are no {argument}: give `fit` a table, `{argument}=`, or set data.{name}.path")
    return config.model_copy(update={"data": config.data.model_copy(update=sources)})
