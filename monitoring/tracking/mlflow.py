"""Keeps a run in MLflow: its settings as parameters, its curves and results as metrics.

The workspace remembers the id of its MLflow run (`events/mlflow.json`), so that a continued training, and the
evaluation after it, are logged to the same MLflow run.
"""

from __future__ import annotations

import json
import time as clock
from collections.abc import Iterator, Mapping
from typing import Any

from alphafuse.storage.manifest import read_json_object
from alphafuse.storage.workspace import Workspace
from monitoring.run_log.log_verification import MLFLOW

PARAMS_AT_A_TIME, METRICS_AT_A_TIME = 100, 1000
"""Largest numbers of parameters and metrics that the server takes in one request."""
SEND_SECONDS = 2.0
"""Time for which metrics are gathered, to be sent together."""
LONGEST_VALUE = 500
"""Number of characters of a parameter that every server takes."""


class MLflowSink:
    """`Sink` that writes to a tracking server.

    Args:
        uri: URI of the tracking server.
        experiment: name of the experiment, which is created if there is none.
        settings: configuration of the run.
    """

    def __init__(self, uri: str, experiment: str, workspace: Workspace, settings: Mapping[str, Any]) -> None:
        import mlflow  # an extra of the package, and slow: sinks are made in the thread that feeds them

        self._uri = uri
        self._experiment = experiment
        self._workspace = workspace
        self._settings = settings
        self._client = mlflow.MlflowClient(uri)
        self._entities = mlflow.entities
        self._run = ""
        self._gathered: list[Any] = []
        self._sent = 0.0

    def begin(self, is_new: bool) -> None:
        known = None if is_new else self._known_run()
        if known is None:
            self._run = self._create_run()
        else:
            self._run = known
            self._client.update_run(known, status="RUNNING")

    def log(self, step: int, numbers: Mapping[str, float], time: float) -> None:
        moment = int(1000 * time)
        self._gathered += [
            self._entities.Metric(name.replace("@", "_at_"), value, moment, step) for name, value in numbers.items()
        ]
        if clock.monotonic() - self._sent > SEND_SECONDS:
            self._send()

    def end(self, failed: bool) -> None:
        self._send()
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")

    def _send(self) -> None:
        for first in range(0, len(self._gathered), METRICS_AT_A_TIME):
            self._client.log_batch(self._run, metrics=self._gathered[first : first + METRICS_AT_A_TIME])
        self._gathered, self._sent = [], clock.monotonic()

    def _known_run(self) -> str | None:
        folder = self._workspace.events
        if not folder.exists(MLFLOW):
            return None
        try:
            known = read_json_object(folder.read_bytes(MLFLOW))
        except ValueError:  # damaged: another run is made, and noted in its place
            return None
        return (
            known.get("run") if (known.get("uri"), known.get("experiment")) == (self._uri, self._experiment) else None
        )

    def _create_run(self) -> str:
        experiment = self._client.get_experiment_by_name(self._experiment)
        identity = experiment.experiment_id if experiment else self._client.create_experiment(self._experiment)
        uri = self._workspace.folder.uri
        run = self._client.create_run(identity, run_name=uri.rstrip("/").rsplit("/", 1)[-1], tags={"workspace": uri})
        params = [self._entities.Param(name, value[:LONGEST_VALUE]) for name, value in _flat(self._settings)]
        for first in range(0, len(params), PARAMS_AT_A_TIME):
            self._client.log_batch(run.info.run_id, params=params[first : first + PARAMS_AT_A_TIME])
        known = {"uri": self._uri, "experiment": self._experiment, "run": run.info.run_id}
        self._workspace.events.write_bytes(MLFLOW, json.dumps(known).encode())
        return run.info.run_id


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names of all settings, with their values as text."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
