"""A tuning: trials with settings from a search space, within a budget, and the best configuration.

Only the stages up to training run: nothing here ranks a test target.
"""

from __future__ import annotations

import math

from alphafuse.config.space import SearchSpace
from alphafuse.errors import WorkspaceError
from alphafuse.events import Listener, StageSkipped, StageWarning
from alphafuse.stages import TRAIN
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.workspace import Workspace
from alphafuse.tuning.best_config import write_best
from alphafuse.tuning.trials import ENDED, Tuning, read_tuning
from alphafuse.tuning.tunable import shared_variants, trained_from, tunable
from jobs.comparison.shared_making import make_shared
from jobs.execution.placement import require_places, require_shared
from jobs.execution.ray_connection import connected
from jobs.tuning.ray_tune import RayTune, broken_stage
from jobs.tuning.search import unfinished
from monitoring.run_log.heartbeat import Heartbeat


def run(space: SearchSpace, folder: Folder, listen: Listener, again: bool = False) -> Tuning:
    """Carry out the trials that the budget still allows, and write `trials.json` and `best.yaml`.

    Both are written again whenever a trial ends, `trials.json` with every validation. A trial that fails stops no
    other; a later call tries it again.

    Args:
        folder: folder of the tuning.
        again: delete the trials of earlier calls and begin anew; what they share stays.

    Raises:
        ConfigError: a setting of the space may not be tuned (see `tunable`).
        OwnershipError: another process tunes in this folder.
        ResourceError: the cluster cannot hold the workers of a trial, or its machines cannot all reach the folder.
        StaleError: the folder has trials of another configuration or space.
        WorkspaceError: no trial can begin, since a stage that they share has failed.
    """

    def say(message: str) -> None:
        listen(StageWarning("tune", message))

    given, space = space.space.settings, tunable(space)
    if idle := [key for key in given if key not in space.space.settings]:
        say(f"left out, since they change nothing that is trained with this configuration: {', '.join(idle)}")

    with Heartbeat(folder, folder.uri, say), connected(space.base.ray):
        require_shared(Workspace(folder.uri))
        require_places(TRAIN.resources, space.base.train.resources)
        tuning = open_record(space, folder, again)
        for trial in tuning.trials:
            if trial.state in ENDED:
                listen(StageSkipped(trial.name))
        trials, seconds = _trials_left(space, tuning), _seconds_left(space, tuning)
        if trials and seconds > 0:
            variants = shared_variants(space)
            broken = make_shared(variants, folder, listen)
            reasons = [broken_stage(config, broken) for config in variants]
            if all(reasons):
                raise WorkspaceError(f"no trial can begin, since a stage before training has failed: {reasons[0]}")
            with RayTune(space, tuning, folder, listen, broken, seconds, trials) as ray_tune:
                ray_tune.run()
        write_best(space, tuning, folder)
        return tuning


def open_record(space: SearchSpace, folder: Folder, again: bool) -> Tuning:
    """The record of earlier calls with the budget of this one, or a new one.

    Args:
        again: delete the trials of earlier calls.

    Raises:
        StaleError: they are trials of another configuration or space.
    """
    made_from = {
        **trained_from(space.base),
        "space": space.space.model_dump(mode="json", exclude={"trials", "minutes", "parallel"}, exclude_none=True),
    }
    budget = space.space.model_dump(mode="json", include={"trials", "minutes"})
    known, new = read_tuning(folder), Tuning(space.base.train.monitor, made_from, budget)
    if known is None:
        return new
    if again:
        new.write(folder)  # first, so that no record names trials that are gone
        for trial in known.trials:
            (folder / trial.name).delete()
        return new
    known.require_same(made_from, folder)
    known.budget = budget
    return known


def _trials_left(space: SearchSpace, tuning: Tuning) -> int:
    """Number of trials to carry out, unfinished ones included; -1: as many as there is time for."""
    if space.space.trials is None:
        return -1
    ended = len(tuning.trials) - len(unfinished(tuning.trials))
    return max(0, space.space.trials - ended)


def _seconds_left(space: SearchSpace, tuning: Tuning) -> float:
    minutes = space.space.minutes
    return math.inf if minutes is None else 60 * minutes - tuning.seconds
