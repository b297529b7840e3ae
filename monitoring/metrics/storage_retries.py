"""Counts how often this process repeated a request to storage.

`alphafuse.storage.filesystem.retries` logs a warning for each.
"""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry

from alphafuse.storage.filesystem import retries
from monitoring.metrics.definitions import PROCESS_METRICS, STORAGE_RETRIES, Instruments

LOGGER = logging.getLogger(retries.__name__)


class StorageRetries(logging.Handler):
    """Counts the repeated requests between `start` and `stop`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(logging.WARNING)
        self._metrics = Instruments(registry, PROCESS_METRICS)

    def emit(self, record: logging.LogRecord) -> None:
        self._metrics.add(STORAGE_RETRIES, 1)

    def start(self) -> None:
        LOGGER.addHandler(self)

    def stop(self) -> None:
        LOGGER.removeHandler(self)
