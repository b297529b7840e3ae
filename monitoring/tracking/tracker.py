"""Hands a run's numbers to tracking tools, without ever holding the run up or ending it.

Each tool is fed by a thread of its own, so that a server that answers late delays nothing. The failure of a tool is
reported once, as a warning, and the tool gets nothing more of this run.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Protocol

from alphafuse.config import Config
from alphafuse.events import (
    Event,
    FanOut,
    Listener,
    StageFailed,
    StageFinished,
    StageSkipped,
    StageStarted,
    StageWarning,
)
from alphafuse.stages import EVALUATE, TRAIN
from alphafuse.storage.manifest import MANIFEST
from alphafuse.storage.workspace import Workspace
from monitoring.tracking.mlflow import MLflowSink
from monitoring.tracking.numbers import tracked_numbers
from monitoring.tracking.tensorboard import TensorBoardSink

CLOSE_SECONDS = 30.0
"""Longest time that a run waits at its end for a tool to take the remaining numbers."""
TRACKED = (TRAIN.name, EVALUATE.name)
"""Stages whose numbers are tracked."""


class Sink(Protocol):
    """A tool that keeps numbers. Its methods may raise any exception."""

    def begin(self, is_new: bool) -> None:
        """Begin a stage that has numbers; `is_new` for a training that starts from the beginning."""

    def log(self, step: int, numbers: Mapping[str, float], time: float) -> None:
        """Keep numbers by name, at a step or epoch and a time in seconds since the epoch."""

    def end(self, failed: bool) -> None:
        """End the stage; when this returns, everything logged must be stored."""


@contextmanager
def tracking_tools(config: Config, workspace: Workspace, warn: Listener) -> Iterator[Listener]:
    """Context with a listener that feeds the tools of `config.monitoring`.

    Args:
        warn: listener that gets a warning for each tool that fails.
    """
    makers: dict[str, Callable[[], Sink]] = {}
    if (tensorboard := config.monitoring.tensorboard) is not None:
        folder = tensorboard.folder or (workspace.folder / "tensorboard").uri
        makers["TensorBoard"] = lambda: TensorBoardSink(folder)
    if (mlflow := config.monitoring.mlflow) is not None:
        settings = config.model_dump(mode="json")
        makers["MLflow"] = lambda: MLflowSink(mlflow.uri, mlflow.experiment, workspace, settings)
    with ExitStack() as stack:
        yield FanOut(*(stack.enter_context(Tracker(name, make, workspace, warn)) for name, make in makers.items()))


class Tracker:
    """Listener and context that feeds one tool.

    Args:
        name: name of the tool, for warnings; in lower case, the extra of the package that the tool needs.
        make: function that makes the tool; called in the thread, so that slow or failing imports happen there.
        warn: listener that gets the warning.
    """

    def __init__(self, name: str, make: Callable[[], Sink], workspace: Workspace, warn: Listener) -> None:
        self._name = name
        self._make = make
        self._workspace = workspace
        self._warning = warn
        self._calls: queue.SimpleQueue[Callable[[Sink], None] | None] = queue.SimpleQueue()
        self._failed = threading.Event()
        self._is_new: bool | None = None  # None unless a stage has begun and has no numbers yet
        self._thread = threading.Thread(target=self._feed, daemon=True)

    def __enter__(self) -> Tracker:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._calls.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive() and not self._failed.is_set():
            self._warn(f"it has not taken all within {CLOSE_SECONDS:.0f} s of the end of the run")

    def __call__(self, event: Event) -> None:
        if event.stage not in TRACKED or self._failed.is_set():
            return
        match event:
            case StageStarted():
                self._is_new = event.stage == "train" and self._is_new_training()
            case StageFinished() | StageSkipped() | StageFailed():
                failed = isinstance(event, StageFailed)
                if self._is_new is None:
                    self._calls.put(lambda sink: sink.end(failed))
            case _:
                self._log(event)

    def _log(self, event: Event) -> None:
        step, numbers = tracked_numbers(event)
        if numbers and (is_new := self._is_new) is not None:
            self._calls.put(lambda sink: sink.begin(is_new))
            self._is_new = None
        if numbers:
            self._calls.put(lambda sink: sink.log(step, numbers, event.time))

    def _is_new_training(self) -> bool:
        """Tell whether the training starts from the beginning: it is neither finished nor to be continued."""
        workspace = self._workspace
        return not (workspace.checkpoints.exists() or workspace.artifact("model").folder.exists(MANIFEST))

    def _feed(self) -> None:
        try:
            sink = self._make()
            while (call := self._calls.get()) is not None:
                call(sink)
        except ModuleNotFoundError as error:
            self._failed.set()
            self._warn(f"{error}: pip install 'alphafuse[{self._name.lower()}]'")
        except Exception as error:  # no failure of a tool may end a training
            self._failed.set()
            self._warn(f"{type(error).__name__}: {error}")

    def _warn(self, reason: str) -> None:
        message = f"{self._name} does not keep this run any more; the run itself goes on ({reason})"
        self._warning(StageWarning("monitoring", message))
