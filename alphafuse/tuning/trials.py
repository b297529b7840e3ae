"""The trials of a tuning, and the file `trials.json` that keeps them: what a later call of the command continues from,
and what the dashboard shows.

Trials are compared by the best value so far of one validation metric: it never falls, so a trial that is stopped since
others are better cannot be the best of all.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from alphafuse.config.space import Value
from alphafuse.errors import StaleError, WorkspaceError
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.manifest import changed_inputs, read_json_object

FILE = "trials.json"
RUNNING: Final = "running"
FINISHED: Final = "finished"
STOPPED: Final = "stopped early"
INTERRUPTED: Final = "interrupted"
FAILED: Final = "failed"
"""States of a trial: it trains (or its process was killed); it has trained to its end; it was stopped since others were
better; the time was over, or it was ended from outside; it ended with an error."""
State = Literal["running", "finished", "stopped early", "interrupted", "failed"]
Name = Annotated[str, Field(pattern=r"^trial-\d{3,}$")]
"""Name of a trial: nothing else is taken for the name of a folder, which a new tuning may delete."""
ENDED = (FINISHED, STOPPED)
"""States of trials that a later call does not go on with."""


@dataclass
class Trial:
    """One training with settings of its own.

    Attributes:
        name: name of the trial, and of its workspace in the folder of the tuning.
        settings: values of the tuned settings, by their dotted keys.
        state: one of the states above.
        reason: why the trial failed; empty where it did not.
        curve: validated epochs, each with the value of the metric.
        seconds: time of the trial, in all calls together.
    """

    name: Name
    settings: dict[str, Value]
    state: State = RUNNING
    reason: str = ""
    curve: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0

    def note(self, epoch: int, value: float) -> None:
        """Note the validation of an epoch; one that is trained again has the same value."""
        if all(epoch != known for known, _ in self.curve):
            self.curve = sorted([*self.curve, (epoch, value)])

    @property
    def best(self) -> tuple[int, float] | None:
        """Epoch and value of the best validation; None before the first one."""
        return max(self.curve, key=lambda point: point[1], default=None)

    @property
    def epochs(self) -> int:
        """The latest epoch that was validated."""
        return self.curve[-1][0] if self.curve else 0

    def best_so_far(self) -> Iterator[tuple[int, float]]:
        """Each validated epoch, with the best value up to it."""
        values = itertools.accumulate((value for _, value in self.curve), max)
        return zip((epoch for epoch, _ in self.curve), values, strict=True)


@dataclass
class Tuning:
    """All trials of a tuning.

    Attributes:
        metric: validation metric that is maximised.
        made_from: configuration and space, as far as trials depend on them.
        budget: `trials` and `minutes` of the latest call; None: no limit.
        seconds: time of all calls, without the stages before training.
        trials: the trials, in the order of their beginning.
    """

    metric: str
    made_from: dict[str, Any]
    budget: dict[str, float | None]
    seconds: float = 0.0
    trials: list[Trial] = field(default_factory=list)

    def trial(self, name: str) -> Trial:
        return next(trial for trial in self.trials if trial.name == name)

    def ranked(self) -> list[Trial]:
        """The trials, the best one first; those that have failed, and those without a validation, last."""
        return sorted(self.trials, key=_rank)

    @property
    def best(self) -> Trial | None:
        """The trial with the best validation, among those that have not failed; None where there is none."""
        first = next(iter(self.ranked()), None)
        return None if first is None or first.best is None or first.state == FAILED else first

    def write(self, folder: Folder) -> None:
        """Write `trials.json`, whole or not at all."""
        folder.write_bytes(FILE, json.dumps(dataclasses.asdict(self), indent=1).encode())

    def require_same(self, made_from: Mapping[str, Any], folder: Folder) -> None:
        """Check that configuration and space are those of the trials.

        Raises:
            StaleError: one has changed.
        """
        if changes := changed_inputs(self.made_from, made_from):
            raise StaleError(
                f"the trials in {folder.uri} were made from other settings ({'; '.join(changes)}).",
                "Give another `workspace` with --set, or begin anew with --redo, which deletes these trials",
            )


def read_tuning(folder: Folder) -> Tuning | None:
    """The tuning of a folder; None where there is none.

    Raises:
        WorkspaceError: its file is damaged.
    """
    if not folder.exists(FILE):
        return None
    try:
        tuning: Tuning = _TUNING.validate_python(read_json_object(folder.read_bytes(FILE)))
    except (ValueError, ValidationError) as error:
        fault = " ".join(str(error).split())
        raise WorkspaceError(
            f"{folder.uri}/{FILE} is damaged ({fault}).", "Delete it and the trials beside it, and tune anew"
        ) from error
    return tuning


def _rank(trial: Trial) -> tuple[bool, bool, float]:
    best = trial.best
    return trial.state == FAILED, best is None, 0.0 if best is None else -best[1]


_TUNING: TypeAdapter[Tuning] = TypeAdapter(Tuning)
