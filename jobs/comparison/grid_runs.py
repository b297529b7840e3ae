"""The runs of a grid, and the Ray task that carries one out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.queue import Queue

from alphafuse.config import Config, GridConfig
from alphafuse.errors import StaleError, WorkspaceError
from alphafuse.events import FanOut, Listener, StageFinished, StageStarted, Summary
from alphafuse.stages import EVALUATE, TRAIN
from alphafuse.storage.filesystem.folder import Folder, resolve
from alphafuse.storage.workspace import Workspace
from jobs.comparison import ensemble_evaluation
from jobs.comparison.shown_events import RunListener
from jobs.pipeline import run_stages
from monitoring.run_log.event_log import EventLog
from monitoring.run_log.heartbeat import own


@dataclass(frozen=True)
class Run:
    """One cell of the table.

    Attributes:
        row: name of the method or the ensemble.
        seed: random seed of the training.
        config: configuration with this seed and the run's own workspace.
        parts: the runs that an ensemble is made of; none for a method.
    """

    row: str
    seed: int
    config: Config
    parts: tuple[Run, ...] = ()

    @property
    def trainings(self) -> tuple[Run, ...]:
        """The runs whose models this run ranks with; for a method, the run itself."""
        return self.parts or (self,)

    @property
    def name(self) -> str:
        return f"{self.row}-{self.seed}"

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.config.workspace)


def method_runs(grid: GridConfig, configs: Mapping[str, Config]) -> list[Run]:
    """The runs of all methods, seed after seed: after each seed the table is whole."""
    return [Run(name, seed, _own(grid, name, seed, config)) for seed in grid.seeds for name, config in configs.items()]


def ensemble_runs(grid: GridConfig, runs: list[Run]) -> list[Run]:
    """The runs of all ensembles, made of those of the methods."""
    known = {(run.row, run.seed): run for run in runs}
    made = []
    for row in grid.ensembles:
        for seed in grid.seeds:
            parts = tuple(known[name, seed] for name in row.of)
            made.append(Run(row.name, seed, _own(grid, row.name, seed, parts[0].config), parts))
    return made


def is_finished(run: Run) -> bool:
    """Tell whether the results of a run are there, made from the settings of the grid, and are not to be made again. A
    run whose files are refused or cannot be read is not finished: carrying it out raises the reason."""
    try:
        models_again = any("model" in part.workspace.redo.pending for part in run.trainings)
        if models_again or "evaluation" in run.workspace.redo.pending:
            return False
        trained = all(
            part.workspace.artifact("model").is_committed(TRAIN.inputs(part.config, part.workspace))
            for part in run.trainings
        )
        return trained and run.workspace.artifact("evaluation").is_committed(_evaluation_inputs(run))
    except WorkspaceError:
        return False


@ray.remote(num_cpus=0)
def carry_out(run: Run, events: Queue) -> None:
    """Carry out what is left of a run.

    Args:
        events: gets the events for the console (`RunListener`); the run's own event log has all.

    Raises:
        StaleError: the run's workspace holds results of other settings than the grid gives.
    """
    events.put(StageStarted(run.name))
    try:
        summary = _make(run, RunListener(run.name, events.put))
    except StaleError as error:
        remedy = "Give the grid another `workspace`, or make the row again: `alphafuse compare GRID --redo"
        raise StaleError(error.fault, f"{remedy} {run.row}`") from error
    events.put(StageFinished(run.name, {name: value for name, value in summary.items() if name != "queries"}))


def _make(run: Run, show: Listener) -> Summary:
    """Carry out a run; returns the summaries of its stages as one."""
    workspace = run.workspace
    if run.parts:
        with own(workspace) as heartbeat:
            workspace = workspace.guarded(heartbeat.guard)
            listen = FanOut(EventLog(workspace), show)
            summary = ensemble_evaluation.run([part.config for part in run.parts], workspace, listen)
            if workspace.redo.pending:
                workspace.redo.take()
            if summary is None:
                return {}
            listen(StageFinished(EVALUATE.name, summary))
            return summary
    summaries = run_stages(run.config, workspace, [TRAIN, EVALUATE], show)
    workspace.artifact("evaluation").require()  # a split without test targets leaves none
    return {name: value for summary in summaries.values() for name, value in summary.items()}


def _evaluation_inputs(run: Run) -> dict[str, Any]:
    if run.parts:
        return ensemble_evaluation.ensemble_inputs([part.config for part in run.parts])
    return EVALUATE.inputs(run.config, run.workspace)


def _own(grid: GridConfig, row: str, seed: int, config: Config) -> Config:
    folder = Folder(resolve(grid.workspace)) / f"{row}-{seed}"
    return config.model_copy(update={"seed": seed, "workspace": folder.uri})
