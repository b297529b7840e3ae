"""Shows a run to the person who started it: one line per stage with rate and time left, warnings, results.

On a terminal the line of a running stage moves (several may run side by side); elsewhere (files, CI) there is a plain
line now and then.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from alphafuse.events import Event, Listener, Value, ignore
from monitoring.presentation.formats import number
from monitoring.run_log.event_values import as_number

PLAIN_SECONDS = 15.0


class RunConsole:
    """A listener and a context: `with RunConsole(stream, "ndcg@20") as listen`.

    Args:
        stream: where to write.
        monitor: the validation metric that is shown with each epoch of a training.
    """

    def __init__(self, stream: TextIO, monitor: str = "") -> None:
        self.console = Console(file=stream, highlight=False)
        self._monitor = monitor
        self._progress = Progress(
            TextColumn("  {task.description:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            _RateColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
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
        show: dict[str, Listener] = {
            "started": self._on_started,
            "progress": self._on_progress,
            "metrics": self._on_metrics,
            "warning": self._on_warning,
            "restart": self._on_warning,
            "finished": self._on_finished,
            "skipped": self._on_skipped,
            "failed": self._on_failed,
        }
        show.get(event.kind, ignore)(event)

    def _on_started(self, event: Event) -> None:
        self._end(event.stage)
        task = self._progress.add_task(event.stage, total=None, count="", unit="")
        self._running[event.stage] = _Running(task, event.time, event.time)

    def _on_progress(self, event: Event) -> None:
        done, total, unit = (event.values.get(key) for key in ("done", "total", "unit"))
        count = f"{number(done)}" + (f" / {number(total)}" if total is not None else "") + f" {unit}"
        running = self._running[event.stage]
        if unit != running.unit:  # another part of the stage: the rate starts again
            self._progress.reset(running.task)
            running.unit = unit
        self._progress.update(running.task, completed=as_number(done), total=as_number(total), count=count, unit=unit)
        if not self.console.is_terminal and event.time - running.plain_at >= PLAIN_SECONDS:
            running.plain_at = event.time
            self.console.print(f"  {event.stage:<10} {count}, {event.time - running.started:.0f} s", soft_wrap=True)

    def _on_metrics(self, event: Event) -> None:
        if "epoch" not in event.values:
            return  # what is measured once stands in the event of its end
        shown = {name: event.values[name] for name in ("epoch", "loss", self._monitor) if name in event.values}
        text = "  ".join(f"{name} {number(value)}" for name, value in shown.items())
        self.console.print(f"  [dim]{event.stage:<10} {text}[/dim]", soft_wrap=True)

    def _on_warning(self, event: Event) -> None:
        self.console.print(f"[yellow]! {event.stage:<10} {escape(str(event.values['message']))}[/]", soft_wrap=True)

    def _on_finished(self, event: Event) -> None:
        started = self._end(event.stage) or event.time
        facts = [f"{name} {number(value)}" for name, value in event.values.items() if value not in (0, None, "", False)]
        seconds = f"{event.time - started:.1f} s"
        self.console.print(
            f"[green]✓[/] {event.stage:<10} {seconds:>8}  [dim]{escape(' · '.join(facts))}[/]", soft_wrap=True
        )

    def _on_skipped(self, event: Event) -> None:
        self._end(event.stage)
        self.console.print(f"[green]✓[/] {event.stage:<10} {'—':>8}  [dim]done before[/]", soft_wrap=True)

    def _on_failed(self, event: Event) -> None:
        self._end(event.stage)
        self.console.print(f"[red]✗ {event.stage:<10} {escape(str(event.values['message']))}[/]", soft_wrap=True)

    def _end(self, stage: str) -> float | None:
        """Take the line of a stage away; returns when the stage started, if it has."""
        running = self._running.pop(stage, None)
        if running is None:
            return None
        self._progress.refresh()
        self._progress.remove_task(running.task)
        return running.started


@dataclass
class _Running:
    """A stage with a line of its own."""

    task: TaskID
    started: float
    plain_at: float
    unit: Value = None


class _RateColumn(ProgressColumn):
    """Units per second of the running task."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{number(round(task.speed, 1))}/s", style="dim")
