"""A grid of methods × seeds: every run trains and evaluates in a workspace of its own, several side by side.

A run is a Ray task without a CPU of its own, which waits for the workers that its training starts. There are never
more runs at a time than the cluster has room for with all of their workers, so no run holds what another waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from alphafuse.config import Config, GridConfig
from alphafuse.errors import ConfigError, WorkspaceError
from alphafuse.evaluation.comparison.method_comparison import Comparison, FinishedRun, compare_methods
from alphafuse.events import Listener, StageFailed, StageSkipped, StageWarning
from alphafuse.stages import EVALUATE, TRAIN
from alphafuse.storage.filesystem.folder import Folder, resolve
from alphafuse.storage.workspace import Workspace
from jobs.comparison.grid_runs import Run, carry_out, ensemble_runs, is_finished, method_runs
from jobs.comparison.shared_making import make_shared
from jobs.comparison.shared_stages import borrow, shared_stages
from jobs.execution.placement import beside_this_process, require_shared, room
from jobs.execution.ray_connection import connected
from jobs.execution.reporting.event_relay import EventRelay, event_queue
from jobs.execution.tasks import as_finished, reason
from jobs.pipeline import redo
from monitoring.comparison.comparison_table import to_csv, to_markdown
from monitoring.comparison.dot_plot import dot_plot
from monitoring.run_log.heartbeat import Heartbeat, own


def run(grid: GridConfig, configs: Mapping[str, Config], listen: Listener, again: Sequence[str] = ()) -> Comparison:
    """Carry out the unfinished runs of a grid, and write `comparison.md`, `.csv` and `.svg` about all finished ones.

    These are written first where earlier runs have finished, and again after every run. A run that fails is named in
    the result and stops no other.

    Args:
        configs: configuration of each method, from `load_grid`.
        again: rows to make again: methods are trained, ensembles evaluated.

    Raises:
        ConfigError: `again` names a row that the grid does not have.
        OwnershipError: another process makes the comparison, or works in a run that is made again.
        ResourceError: the machines of the cluster cannot all reach the workspace.
    """
    for name in again:
        if name not in grid.rows:
            raise ConfigError(f"there is no row {name!r} to be redone; rows: {', '.join(grid.rows)}")
    folder = Folder(resolve(grid.workspace))
    methods = method_runs(grid, configs)
    ensembles = ensemble_runs(grid, methods)
    say = _saying(listen)
    with Heartbeat(folder, folder.uri, say), connected(methods[0].config.ray):
        require_shared(Workspace(folder.uri))
        failures = _failed_before(methods, configs, make_shared(configs.values(), folder, listen))
        finished: set[str] = set()

        def publish(*names: str) -> Comparison:
            """Write the comparison, with the runs `names` among the finished ones."""
            finished.update(names)
            measured, unreadable = _measured([*methods, *ensembles], finished, failures)
            comparison = compare_methods(grid, configs, measured, failures | unreadable)
            folder.write_bytes("comparison.md", to_markdown(comparison).encode())
            folder.write_bytes("comparison.csv", to_csv(comparison).encode())
            folder.write_bytes("comparison.svg", dot_plot(comparison).encode())
            return comparison

        def left(runs: Sequence[Run]) -> list[Run]:
            return [run for run in runs if run.name not in finished and not _failed(run, failures)]

        for each in left([*methods, *ensembles]):
            borrow(each.workspace, configs[each.trainings[0].row])
            if each.row in again:
                with own(each.workspace, say):
                    redo(each.workspace, EVALUATE if each.parts else TRAIN)
        if done := [run.name for run in left([*methods, *ensembles]) if is_finished(run)]:
            unusable = publish(*done).failures
            for name in done:
                listen(StageFailed(name, unusable[name]) if name in unusable else StageSkipped(name))
        _carry_out(left(methods), grid.parallel, listen, failures, publish)
        for each in ensembles:
            if each.name not in finished and (missing := _failed(each, failures)):
                failures[each.name] = f"needs {', '.join(missing)}"
        _carry_out(left(ensembles), grid.parallel, listen, failures, publish)
        return publish()


def _saying(listen: Listener) -> Callable[[str], None]:
    """The function that shows a message about the comparison as a whole."""
    return lambda message: listen(StageWarning("compare", message))


def side_by_side(configs: Sequence[Config], parallel: int) -> int:
    """Number of runs at a time: no more than `parallel`, and than the cluster holds with all of their workers.

    A run whose workers alone are too many takes no place: it fails at once.
    """
    resources = [config.train.resources for config in configs]
    fitting = [room(each, grown=True) // each.workers for each in resources]
    return min([parallel, *(number for number in fitting if number)])


def _failed_before(runs: Sequence[Run], configs: Mapping[str, Config], broken: Mapping[str, str]) -> dict[str, str]:
    """Reasons why runs cannot begin, by the run's name: failures of the shared stages that they need."""
    failures = {}
    for run in runs:
        reasons = [broken[shared.folder] for shared in shared_stages(configs[run.row]) if shared.folder in broken]
        if reasons:
            failures[run.name] = reasons[0]
    return failures


def _failed(run: Run, failures: Container[str]) -> list[str]:
    """Names of the trainings of a run that have failed."""
    return [part.name for part in run.trainings if part.name in failures]


def _carry_out(
    runs: Sequence[Run],
    parallel: int,
    listen: Listener,
    failures: dict[str, str],
    finish: Callable[[str], object],
) -> None:
    """Carry out runs that do not depend on each other. Add those that fail to `failures`, and call `finish` with the
    name of each of the others."""
    if not runs:
        return
    # On this machine: whoever watches the comparison looks here for the lists of its runs' processes.
    task = carry_out.options(scheduling_strategy=beside_this_process())
    limit = side_by_side([run.config for run in runs], parallel)
    with event_queue() as queue, EventRelay(listen, queue):
        outcomes = as_finished(lambda run: task.remote(run, queue), runs, limit)
        for run, outcome in outcomes:
            if isinstance(outcome, Exception):
                failures[run.name] = reason(outcome)
                queue.put(StageFailed(run.name, failures[run.name]))
            else:
                finish(run.name)


def _measured(
    runs: Sequence[Run], finished: Container[str], failures: Container[str]
) -> tuple[dict[str, dict[int, FinishedRun]], dict[str, str]]:
    """Return the finished runs by row and seed, with no seeds for a row whose ended runs have all failed; and why
    results cannot be read, by the name of the run."""
    rows: dict[str, dict[int, FinishedRun]] = {}
    unreadable: dict[str, str] = {}
    for run in runs:
        if run.name in finished:
            measured = FinishedRun(run.workspace, [part.workspace for part in run.trainings])
            try:
                measured.require_readable()
            except WorkspaceError as error:
                folder = run.workspace.artifact("evaluation").folder.uri
                unreadable[run.name] = f"{error.fault} Delete {folder}, and the same command evaluates the run again"
                rows.setdefault(run.row, {})
            else:
                rows.setdefault(run.row, {})[run.seed] = measured
        elif run.name in failures:
            rows.setdefault(run.row, {})
    return rows, unreadable
