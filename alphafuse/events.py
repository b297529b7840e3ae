"""Events: what a running stage reports, one class for each kind, and the fan-out that hands them on.

The library knows nothing of consoles, files or metric systems: it calls a listener, and `jobs` decides who listens.
A listener takes the events that it has a use for, by their class, and ignores all others.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Value = int | float | str | bool | None
Summary = Mapping[str, Value]
"""Facts by name that a person is told of a stage that has done its work."""
INTERRUPTED = "interrupted"
"""The message of a stage that somebody ended with Ctrl-C, which has not failed."""


@dataclass(frozen=True)
class Event:
    """The base of all events.

    Attributes:
        stage: name of the stage ("prepare", "embed", …).
        time: seconds since the epoch.
    """

    stage: str
    time: float = field(default_factory=time.time, kw_only=True)


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener that does nothing."""


class FanOut:
    """A listener that hands each event to several listeners, one after the other."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def __call__(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)


OPEN = {"open": True}
"""Marks a field for values by names that no class can declare: the metrics of a configuration, the facts of a stage."""


@dataclass(frozen=True)
class StageStarted(Event):
    """The stage begins; it may find that there is nothing to do."""


@dataclass(frozen=True)
class StageFinished(Event):
    """The stage has done its work: its last event.

    Attributes:
        summary: as its `run` returned it.
    """

    summary: Summary = field(default_factory=dict, metadata=OPEN)


@dataclass(frozen=True)
class StageSkipped(Event):
    """The stage had nothing to do: its last event."""


@dataclass(frozen=True)
class Notice(Event):
    """The base of events that a person should read.

    Attributes:
        message: what is wrong, and what helps.
    """

    message: str


@dataclass(frozen=True)
class StageFailed(Notice):
    """The stage has ended with an error (`INTERRUPTED` where somebody ended it): its last event."""


@dataclass(frozen=True)
class StageWarning(Notice):
    """Something is wrong or was repaired, and the stage goes on."""


@dataclass(frozen=True)
class WorkersRestarted(Notice):
    """Workers have died and were started again.

    Attributes:
        restarts: how many there have been in this run of the stage.
        worker: name of the one that died, where the others went on without it.
    """

    restarts: int
    worker: str | None = None


@dataclass(frozen=True)
class Progress(Event):
    """Work of the present part of a stage.

    Attributes:
        done, total: in units; the total is None where it is unknown.
        unit: what is counted: "texts", "steps", …
    """

    done: int
    total: int | None
    unit: str


@dataclass(frozen=True)
class EmbeddingProgress(Progress):
    """Progress with the batches of texts, which engines embed.

    Attributes:
        tokens: read by all engines so far.
        quarantined: texts without a vector so far.
        batch_fill: texts of the latest batch, as a share of the largest possible.
        engines: number of engines that work.
    """

    tokens: int
    quarantined: int
    batch_fill: float
    engines: int


@dataclass(frozen=True)
class TrainingProgress(Progress):
    """Progress of a training, in optimizer steps.

    Attributes:
        epoch: the present one, from 1.
        loss: mean over the targets of all ranks since the last report.
        learning_rate, table_learning_rate: of the last step; of the dense weights, and of the item table's rows.
        gradient_norm, table_gradient_norm: of the last step, over all ranks, before clipping.
        samples_per_second: of all ranks.
    """

    epoch: int
    loss: float
    learning_rate: float | None = None
    table_learning_rate: float | None = None
    gradient_norm: float | None = None
    table_gradient_norm: float | None = None
    samples_per_second: float | None = None


@dataclass(frozen=True)
class ValidationProgress(Event):
    """A validation in the course of a training goes on; as `Progress`, which it is not: no step of the training."""

    done: int
    total: int | None
    unit: str


@dataclass(frozen=True)
class Metrics(Event):
    """What a stage has measured.

    Attributes:
        split: whose targets were ranked ("validation", "test"); None for numbers that are about no split.
        numbers: by name: "ndcg@20", "retained_energy", …
    """

    split: str | None = None
    numbers: Mapping[str, float] = field(default_factory=dict, metadata=OPEN)


@dataclass(frozen=True, kw_only=True)
class EpochMetrics(Metrics):
    """An epoch of a training has ended; `numbers` are those of its validation, none where it was not validated.

    Attributes:
        epoch: from 1.
        loss: mean over the targets of all ranks.
    """

    epoch: int
    loss: float


@dataclass(frozen=True)
class CheckpointWritten(Event):
    """A training can continue from here.

    Attributes:
        step: steps that were taken before it.
        seconds: that writing took.
        bytes: of all ranks' files.
    """

    step: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class ArtifactCommitted(Event):
    """The stage has made an artefact, now or in an earlier run."""

    artifact: str
    rows: int | None
    bytes: int
    files: int


@dataclass(frozen=True)
class WorkerServing(Event):
    """A worker serves its metrics.

    Attributes:
        worker: names it among the workers of the stage; a process that takes its place has the same name.
        address: host and port.
        workers: how many there are, where they are named by their ranks: those of higher ranks are gone. Else None.
    """

    worker: str
    address: str
    workers: int | None = None


@dataclass(frozen=True)
class WorkersGone(Event):
    """No worker of the stage serves its metrics any more."""


@dataclass(frozen=True)
class BatchEmbedded(Event):
    """An engine has embedded a batch of texts.

    Attributes:
        texts, tokens: read by the engine.
        seconds: without reading the texts.
        fill: texts, as a share of the largest possible batch.
        retries: how often the engine was asked again, since it had refused a larger batch.
        failed: texts without a vector, by category of the reason.
    """

    texts: int
    tokens: int
    seconds: float
    fill: float
    retries: int
    failed: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class StepCosts(Event):
    """The base of events about a rank's steps: seconds of a step, split into spans, and counts.

    Attributes:
        rank: of the worker.
        step: number of the (last) step, from 1.
        seconds: of the whole step.
        data_seconds … optimizer_seconds: of its spans. `exchange` is all waiting for other ranks but for the averaging
            of the dense gradients, which the engine does in its backward pass.
        rows_requested: item indices looked up.
        rows_distinct: different ones among them.
        rows_served: rows of this rank that all ranks asked for.
        rows_touched: rows of this rank that were updated.
        bytes_sent: for other ranks.
    """

    rank: int
    step: int
    seconds: float
    data_seconds: float = 0.0
    lookup_seconds: float = 0.0
    forward_seconds: float = 0.0
    backward_seconds: float = 0.0
    exchange_seconds: float = 0.0
    optimizer_seconds: float = 0.0
    rows_requested: float = 0.0
    rows_distinct: float = 0.0
    rows_served: float = 0.0
    rows_touched: float = 0.0
    bytes_sent: float = 0.0

    def span_seconds(self) -> dict[str, float]:
        """Seconds by span, in the order of `SPANS`."""
        return {span: getattr(self, f"{span}_seconds") for span in SPANS}


MEASURED = tuple(
    entry.name for entry in dataclasses.fields(StepCosts) if entry.name not in ("stage", "time", "rank", "step")
)
"""What is measured in a step, by the names of its fields."""
SPANS = tuple(name.removesuffix("_seconds") for name in MEASURED if name.endswith("_seconds"))
"""What the time of a step is split into."""
OWN_SPANS = ("data", "lookup", "forward", "optimizer")
"""The spans in which a rank waits for no other."""


@dataclass(frozen=True, kw_only=True)
class StepTaken(StepCosts):
    """A rank has taken a step.

    Attributes:
        samples: training samples of this rank.
    """

    samples: int


@dataclass(frozen=True, kw_only=True)
class StepMeans(StepCosts):
    """A rank's steps since its last report, in the mean.

    Attributes:
        world_size: number of ranks.
        steps: how many steps the means are over.
        samples_per_second: of this rank.
        memory_bytes: resident memory of the process.
        device_memory_bytes: allocated by tensors; None without a GPU.
        host: name of the machine.
    """

    world_size: int
    steps: int
    samples_per_second: float
    memory_bytes: int
    device_memory_bytes: int | None
    host: str
