"""Shows a run to the person who started it: one line per stage with rate and time left, warnings, results.

On a terminal each running stage has a progress bar (several stages may run side by side). Elsewhere (files, CI) a plain
line is written now and then.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from alphafuse.events import (
    EpochMetrics,
    Event,
    StageFailed,
    StageFinished,
    StageRefused,
    StageSkipped,
    StageStarted,
    StageWarning,
    WorkersRestarted,
)
from alphafuse.events import Progress as ProgressEvent
from monitoring.presentation.formats import number
from monitoring.terminal.safe_text import SafeConsole

PLAIN_SECONDS = 15.0


class RunConsole:
    """Listener and context that prints a run: `with RunConsole(stream, "ndcg@20") as listen`.

    Args:
        stream: stream to write to.
        monitor: validation metric that is shown with each epoch of a training.
        failures: print the failures of stages; False for a command that ends with the same message.
        quiet: print warnings and failures alone.
    """

    def __init__(self, stream: TextIO, monitor: str = "", failures: bool = True, quiet: bool = False) -> None:
        self.console = SafeConsole(file=stream)
        self._monitor = monitor
        self._failures = failures
        self._quiet = quiet
        self._progress = Progress(
            TextColumn("  {task.description:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            _RateColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self._running: dict[str, _Running] = {}

    def __enter__(self) -> RunConsole:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for stage in list(self._running):
            self._end(stage)
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case StageStarted():
                self._on_started(event)
            case ProgressEvent():
                self._on_progress(event)
            case EpochMetrics():
                self._on_epoch(event)
            case StageWarning() | WorkersRestarted():
                self._print(f"[yellow]! {event.stage:<10} {escape(event.message)}[/]", urgent=True)
            case StageFinished():
                self._on_finished(event)
            case StageSkipped():
                self._end(event.stage)
                self._print(f"[green]✓[/] {event.stage:<10} {'—':>8}  [dim]done before[/]")
            case StageRefused():  # the command ends with the message
                self._end(event.stage)
            case StageFailed() if self._failures:
                self._end(event.stage)
                self._print(f"[red]✗ {event.stage:<10} {escape(event.message)}[/]", urgent=True)

    def _print(self, line: str, urgent: bool = False) -> None:
        """Print a line; of a quiet console, warnings and failures alone."""
        if urgent or not self._quiet:
            self.console.print(line, soft_wrap=True)

    def _on_started(self, event: StageStarted) -> None:
        self._end(event.stage)
        task = self._progress.add_task(event.stage, total=None, count="", unit="")
        self._running[event.stage] = _Running(task, event.time, event.time)

    def _on_progress(self, event: ProgressEvent) -> None:
        done, total, unit = event.done, event.total, event.unit
        count = f"{number(done)}" + (f" / {number(total)}" if total is not None else "") + f" {unit}"
        running = self._running[event.stage]
        if unit != running.unit:  # another part of the stage: the rate starts again
            self._progress.reset(running.task)
            running.unit = unit
        self._progress.update(running.task, completed=done, total=total, count=count, unit=unit)
        if not self.console.is_terminal and event.time - running.plain_at >= PLAIN_SECONDS:
            running.plain_at = event.time
            self._print(f"  {event.stage:<10} {count}, {event.time - running.started:.0f} s")

    def _on_epoch(self, event: EpochMetrics) -> None:
        shown: dict[str, float] = {"epoch": event.epoch, "loss": event.loss}
        if self._monitor in event.numbers:
            shown[self._monitor] = event.numbers[self._monitor]
        text = "  ".join(f"{name} {number(value)}" for name, value in shown.items())
        self._print(f"  [dim]{event.stage:<10} {text}[/dim]")

    def _on_finished(self, event: StageFinished) -> None:
        started = self._end(event.stage) or event.time
        summary = event.summary.items()
        facts = [f"{name} {number(value)}" for name, value in summary if value not in (0, None, "", False)]
        seconds = f"{event.time - started:.1f} s"
        self._print(f"[green]✓[/] {event.stage:<10} {seconds:>8}  [dim]{escape(' · '.join(facts))}[/]")

    def _end(self, stage: str) -> float | None:
        """Remove the line of a stage; returns when the stage started, or None if it has no line."""
        running = self._running.pop(stage, None)
        if running is None:
            return None
        self._progress.refresh()
        self._progress.remove_task(running.task)
        return running.started


@dataclass
class _Running:
    """A running stage: its line, when it started, and when its latest plain line was printed."""

    task: TaskID
    started: float
    plain_at: float
    unit: str = ""


class _RateColumn(ProgressColumn):
    """Units per second of the running task."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{number(round(task.speed, 1))}/s", style="dim")
