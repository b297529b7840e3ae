"""A replica of the web service: a model, the requests that wait for it, and the watch for the next model."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import ray
import torch
from ray import serve
from ray.exceptions import RayError

from alphafuse.config.sections.serve import ServeConfig
from alphafuse.errors import AlphafuseError
from jobs.execution.ray_internals import keep_replica_on_loopback
from jobs.execution.reporting.worker_metrics import LOOPBACK
from jobs.serving import fleet
from jobs.serving.api import make_api
from jobs.serving.batching import Batches
from jobs.serving.model_source import Location, ModelSource
from jobs.serving.served_model import Answer, Asked, ServedModel
from jobs.serving.wire_format import Health
from monitoring.metrics.serving_recorder import ServingRecorder

LARGEST_BATCH = 64
"""Requests that are ranked together at most."""
REPORT_SECONDS = 2.0
"""Seconds between two reports of a replica's metrics to the others."""
LOGGER = logging.getLogger("ray.serve")

FAILURES = (AlphafuseError, OSError)
"""Errors of a model or of its storage."""


@serve.ingress()
class Replica:
    """One process that answers.

    Args:
        source: names the model that is to be served.
        settings: the section `serve`.
        digest: SHA-256 of the token.

    Raises:
        AlphafuseError: neither the wanted model nor that of the other replicas can be served.
    """

    def __init__(self, source: ModelSource, settings: ServeConfig, digest: str) -> None:
        if ray.util.get_node_ip_address() == LOOPBACK:  # an embedded Ray
            keep_replica_on_loopback()
        torch.set_num_threads(settings.cpus)
        self._source = source
        self._settings = settings
        self._digest = digest
        self._name = serve.get_replica_context().replica_id.unique_id
        self._recorder = ServingRecorder()
        self._model = self._first_model()
        self._recorder.on_model(self._model.location.version, self._model.num_items)
        self._batches = Batches(self._recommend_batch, LARGEST_BATCH)
        self._tasks: list[asyncio.Task[None]] = []

    def __serve_build_asgi_app__(self) -> Any:
        """Make the web service; called by Ray Serve in the event loop of the replica."""
        self._tasks = [asyncio.create_task(loop) for loop in (self._reload_forever(), self._report_forever())]
        return make_api(self, self._digest)

    async def recommend(self, asked: Asked) -> Answer:
        """The best items after a history; requests that wait at the same time are ranked together."""
        return await self._batches.ask(asked)

    async def _recommend_batch(self, batch: list[Asked]) -> list[Answer]:
        model, started = self._model, time.perf_counter()
        answers = await asyncio.to_thread(model.recommend, batch)
        unknown = sum(len(answer.unknown_items) for answer in answers)
        asked = sum(len(each.history) for each in batch)
        self._recorder.on_batch(time.perf_counter() - started, asked, unknown)
        return answers

    async def similar(self, item_id: str, k: int) -> Answer:
        """The items most similar to one."""
        return await asyncio.to_thread(self._model.similar, item_id, k)

    def health(self) -> Health:
        """The model that answers."""
        location = self._model.location
        return Health(
            status="ok", version=location.version, fingerprint=location.fingerprint, items=self._model.num_items
        )

    async def metrics(self) -> bytes:
        """The metrics of all replicas."""
        await self._report()
        page: bytes = await _fleet().page.remote()
        return page

    def measured(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._recorder.on_request(path.removeprefix("/"), status, seconds)

    def _first_model(self) -> ServedModel:
        """The wanted model, or where it cannot be served that of the other replicas."""
        try:
            return ServedModel(self._source.current(), self._settings.search)
        except FAILURES as error:
            served: Location | None = ray.get(_fleet().served.remote())
            if served is None:
                raise
            LOGGER.warning("the wanted model is not served, but that of the other replicas: %s", error)
            return ServedModel(served, self._settings.search)

    async def _reload_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.reload_seconds)
            try:
                await self._look()
            except (*FAILURES, RayError, ValueError) as error:  # ValueError: Ray starts the actor again
                LOGGER.warning("cannot look for another model, and serves %s: %s", self._model.location.version, error)

    async def _look(self) -> None:
        """Serve the wanted model if it is another one and the others do not load it at the moment."""
        try:
            wanted = await asyncio.to_thread(self._source.current)
        except FAILURES:
            self._recorder.on_look(outdated=True)  # as far as can be told
            raise
        outdated = wanted.content != self._model.location.content
        self._recorder.on_look(outdated)
        if outdated and await _fleet().take_turn.remote(self._name, wanted):
            refused = True
            try:
                refused = not await self._reload(wanted)
            finally:
                await _fleet().end_turn.remote(self._name, wanted, refused)

    async def _reload(self, wanted: Location) -> bool:
        """Load a model beside the one that serves, and swap them; False where it is refused, and the old one serves
        on."""
        try:
            model = await asyncio.to_thread(ServedModel, wanted, self._settings.search)
        except Exception as error:  # whatever is wrong with it, the old one serves on
            unforeseen = not isinstance(error, FAILURES)
            message = "%s is refused, %s serves on: %s"
            LOGGER.error(message, wanted.version, self._model.location.version, error, exc_info=unforeseen)
            self._recorder.on_reload("refused")
            return False
        LOGGER.info("%s serves in the place of %s", wanted.version, self._model.location.version)
        self._model = model  # batches that were begun before keep the old one to their end
        self._recorder.on_model(wanted.version, model.num_items)
        self._recorder.on_reload("swapped")
        self._recorder.on_look(outdated=False)
        return True

    async def _report_forever(self) -> None:
        while True:
            try:
                await self._report()
            except (RayError, ValueError) as error:
                LOGGER.warning("cannot report metrics: %s", error)
            await asyncio.sleep(REPORT_SECONDS)

    async def _report(self) -> None:
        await _fleet().report.remote(self._name, self._recorder.families(), self._model.location)


def _fleet() -> Any:
    """The actor of all replicas; asked for anew each time, since Ray may have started it again."""
    return serve.get_deployment_actor(fleet.NAME)
