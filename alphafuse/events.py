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
"""Facts about a finished stage, by name, for a person to read."""
INTERRUPTED = "interrupted"
"""Message of a `StageFailed` where somebody ended the stage with Ctrl-C, which is no fault."""


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
"""Mark of a field whose values have names that no class can declare: the metrics of a configuration, the facts of a
stage."""


@dataclass(frozen=True)
class StageStarted(Event):
    """The stage begins; it may find that there is nothing to do."""


@dataclass(frozen=True)
class StageFinished(Event):
    """The stage has done its work: its last event.

    Attributes:
        summary: what the stage's `run` returned.
    """

    summary: Summary = field(default_factory=dict, metadata=OPEN)


@dataclass(frozen=True)
class StageSkipped(Event):
    """The stage had nothing to do: its last event."""


@dataclass(frozen=True)
class StageRefused(Event):
    """The stage has refused the configuration, or was interrupted, before it changed anything: what it has made before
    stands. Its last event."""


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
        restarts: number of restarts in this run of the stage.
        worker: name of the worker that died, where the others went on without it.
    """

    restarts: int
    worker: str | None = None


@dataclass(frozen=True)
class Progress(Event):
    """The stage goes on with its present piece of work.

    Attributes:
        done, total: numbers of units; the total is None where it is unknown.
        unit: what is counted: "texts", "steps", …
    """

    done: int
    total: int | None
    unit: str


@dataclass(frozen=True)
class EmbeddingProgress(Progress):
    """Progress of the engines with the batches of texts.

    Attributes:
        tokens: number of tokens that all engines have read so far.
        quarantined: number of texts without a vector so far.
        batch_fill: number of texts in the latest batch, as a share of the largest possible.
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
        epoch: number of the present epoch, from 1.
        loss: mean loss over the targets of all ranks since the last report.
        learning_rate, table_learning_rate: learning rates of the dense weights and of the item table's rows in the last
            step.
        gradient_norm, table_gradient_norm: norms of the gradients of both in the last step, over all ranks, before
            clipping.
        samples_per_second: training samples per second of all ranks together.
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
    """A validation within a training goes on. It is no `Progress`, which counts the steps of the training.

    Attributes:
        done, total, unit: see `Progress`.
    """

    done: int
    total: int | None
    unit: str


@dataclass(frozen=True)
class Metrics(Event):
    """Numbers that a stage has measured.

    Attributes:
        split: whose targets were ranked ("validation", "test"); None for numbers that are about no split.
        numbers: values by name: "ndcg@20", "retained_energy", …
    """

    split: str | None = None
    numbers: Mapping[str, float] = field(default_factory=dict, metadata=OPEN)


@dataclass(frozen=True, kw_only=True)
class EpochMetrics(Metrics):
    """An epoch of a training has ended; `numbers` are those of its validation, none where it was not validated.

    Attributes:
        epoch: number of the epoch, from 1.
        loss: mean loss over the targets of all ranks.
    """

    epoch: int
    loss: float


@dataclass(frozen=True)
class CheckpointWritten(Event):
    """A checkpoint is written, from which the training can continue.

    Attributes:
        step: number of steps taken before the checkpoint.
        seconds: time from its beginning until it was complete; most of it is spent beside the training.
        bytes: size of all ranks' files.
        waited: seconds that the training stood still for it.
    """

    step: int
    seconds: float
    bytes: int
    waited: float = 0.0


@dataclass(frozen=True)
class ArtifactCommitted(Event):
    """An artefact of the stage is committed, by this run or an earlier one.

    Attributes:
        artifact: name of the artefact.
        rows, bytes, files: its numbers of rows, bytes and files.
    """

    artifact: str
    rows: int | None
    bytes: int
    files: int


@dataclass(frozen=True)
class WorkerServing(Event):
    """A worker serves its metrics.

    Attributes:
        worker: name among the workers of the stage; a process that takes this one's place has the same name.
        address: host and port.
        workers: number of workers where their ranks name them (workers of higher ranks are gone), else None.
    """

    worker: str
    address: str
    workers: int | None = None


@dataclass(frozen=True)
class WorkersGone(Event):
    """The workers of the stage have ended, and serve no metrics."""


@dataclass(frozen=True)
class BatchEmbedded(Event):
    """An engine has embedded a batch of texts.

    Attributes:
        texts, tokens: numbers of texts and tokens that the engine read.
        seconds: time that the engine computed.
        fill: number of texts, as a share of the largest possible batch.
        retries: number of times that the engine was called again because it had refused a larger batch.
        failed: number of texts without a vector, by category of the reason.
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
        rank: rank of the worker.
        step: number of the (last) step, from 1.
        seconds: time of the whole step.
        data_seconds … optimizer_seconds: times of its spans. `exchange` is all waiting for other ranks but for the
            averaging of the dense gradients, which the engine does in its backward pass.
        rows_requested: item indices looked up.
        rows_distinct: distinct item indices among them.
        rows_served: rows of this rank that all ranks asked for.
        rows_touched: rows of this rank that were updated.
        bytes_sent: bytes sent to other ranks.
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
"""Names of the fields that are measured in a step."""
SPANS = tuple(name.removesuffix("_seconds") for name in MEASURED if name.endswith("_seconds"))
"""Spans that the time of a step is split into."""
RANKING_SPANS = ("load", "data", "hidden", "product", "exclusions", "counting", "lists", "exchange")
"""Spans that the time of an evaluation is split into: the model, the targets and their histories, hidden states, scores
of all items, leaving items out, ranks of the targets, top lists, and waiting for other ranks."""
OWN_SPANS = ("data", "lookup", "forward", "optimizer")
"""The spans in which a rank waits for no other."""


@dataclass(frozen=True, kw_only=True)
class StepTaken(StepCosts):
    """A rank has taken a step.

    Attributes:
        samples: number of training samples of this rank.
    """

    samples: int


@dataclass(frozen=True, kw_only=True)
class StepMeans(StepCosts):
    """Means over a rank's steps since its last report.

    Attributes:
        world_size: number of ranks.
        steps: number of steps that the means are over.
        samples_per_second: training samples per second of this rank.
        memory_bytes: resident memory of the process.
        device_memory_bytes: GPU memory allocated by tensors; None without a GPU.
        host: name of the machine.
    """

    world_size: int
    steps: int
    samples_per_second: float
    memory_bytes: int
    device_memory_bytes: int | None
    host: str
