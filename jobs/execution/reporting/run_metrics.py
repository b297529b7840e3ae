"""Connects a run to Prometheus: its events become metrics of the driver's process, and all of its processes, with the
machines of the Ray cluster, are listed for scraping as they come and go.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from alphafuse.config import Config
from alphafuse.errors import ResourceError
from alphafuse.events import Event, FanOut, Listener, StageWarning, WorkerServing, WorkersGone, ignore
from alphafuse.storage.workspace import Workspace
from jobs.execution.reporting.worker_metrics import serving
from monitoring.metrics.run_recorder import RunRecorder
from monitoring.metrics.targets import Target, TargetFile, run_label

LISTING_SECONDS = 10.0
"""Seconds after which the machines are listed again, and the list is marked as that of a living run."""


@contextmanager
def run_metrics(config: Config, workspace: Workspace, warn: Listener) -> Iterator[Listener]:
    """The listener that keeps the metrics of a run, which are served for the time of the block, and the list of its
    processes. To be used on a connection to Ray.

    Args:
        warn: gets a warning if the list cannot be written.
    """
    settings = serving(config)
    if settings is None:
        yield ignore
        return
    folder = Path(config.monitoring.targets) if config.monitoring.targets else None
    with settings.exporter() as exporter:
        recorder = RunRecorder(exporter.registry, workspace.folder)
        with _Processes(run_label(workspace), exporter.address, folder, warn) as processes:
            try:
                yield FanOut(recorder, processes)
            finally:
                error = sys.exception()
                if error is None or isinstance(error, Exception):  # whoever interrupts the run does not want to wait
                    exporter.await_scrape()


class _Processes:
    """A listener and a context: the list of a run's processes, kept up to date in a file.

    A folder that cannot be written to causes a warning and no error, since nobody may be watching.
    """

    def __init__(self, run: str, address: str, folder: Path | None, warn: Listener) -> None:
        self._run = run
        self._address = address
        self._warn = warn
        self._workers: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)
        self._file: TargetFile | None = None
        try:
            self._file = TargetFile(folder, run)
        except (OSError, ResourceError) as error:
            self._give_up(error)

    def __enter__(self) -> _Processes:
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._file is not None:
            self._file.remove()

    def __call__(self, event: Event) -> None:
        match event:
            case WorkerServing():
                if event.workers is not None:
                    self._forget(event.stage, event.workers)
                with self._lock:
                    self._workers[event.stage, event.worker] = event.address
                self._write()
            case WorkersGone():
                self._forget(event.stage)
                self._write()

    def _forget(self, stage: str, first: int = 0) -> None:
        """Take the workers of a stage that are numbered `first` or higher off the list."""
        with self._lock:
            kept = {key: address for key, address in self._workers.items() if key[0] != stage or int(key[1]) < first}
            self._workers = kept

    def _repeat(self) -> None:
        while not self._ended.wait(LISTING_SECONDS):
            self._write()

    def _write(self) -> None:
        with self._lock:
            if self._file is not None:
                try:
                    self._file.write(self._targets())
                except OSError as error:
                    self._give_up(error)

    def _targets(self) -> list[Target]:
        ours = {"job": "alphafuse", "run": self._run}
        run = Target(self._address, {**ours, "role": "run"})
        workers = [
            Target(address, {**ours, "role": "worker", "stage": stage, "worker": worker})
            for (stage, worker), address in sorted(self._workers.items())
        ]
        # Without the name of the run: several runs on one cluster list the same machines.
        machines = [
            Target(f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}", {"job": "ray", "role": "machine"})
            for node in ray.nodes()
            if node["Alive"] and node["MetricsExportPort"]
        ]
        return [run, *workers, *machines]

    def _give_up(self, error: OSError | ResourceError) -> None:
        self._file = None
        cause = f" in {error.filename}: {error.strerror}" if isinstance(error, OSError) else f": {error}"
        message = (
            f"the processes of the run cannot be listed for Prometheus{cause}. Set "
            "monitoring.targets to a folder that can be written to"
        )
        self._warn(StageWarning("monitoring", message))
