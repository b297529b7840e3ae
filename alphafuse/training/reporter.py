"""What a rank tells of its steps: each one, and now and then what they took in the mean."""

from __future__ import annotations

import socket
from collections import defaultdict

import psutil
import torch

from alphafuse.data.sampling.batches import Batch
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import Event, Listener, Value
from alphafuse.training.step_events import COUNTS, PHASES


class StepReporter:
    """Emits an event `step` after each step of this rank, and an event `worker` with their means when asked.

    Args:
        communicator: its meter measures the steps.
        device: whose memory is reported.
    """

    def __init__(self, communicator: Communicator, device: torch.device, listen: Listener) -> None:
        self._communicator = communicator
        self._device = device
        self._listen = listen
        self._process = psutil.Process()
        self._host = socket.gethostname()
        self._steps = 0
        self._sums: dict[str, float] = defaultdict(float)

    def end_step(self, number: int, batches: list[Batch]) -> None:
        """The step `number` is over; `batches` were this rank's part of it."""
        taken = self._communicator.meter.end_step()
        values = {"seconds": taken["seconds"], "samples": sum(len(batch.histories) for batch in batches)}
        for phase in PHASES:
            values[f"{phase}_seconds"] = taken.get(f"{phase}_seconds", 0.0)
        for name in COUNTS:
            values[name] = taken.get(name, 0.0)
        self._steps += 1
        for name, value in values.items():
            self._sums[name] += value
        self._listen(Event("train", "step", {"rank": self._communicator.rank, "step": number, **values}))

    def report(self, number: int) -> float:
        """Emit the means over the steps since the last report, the last of which was `number`.

        Returns:
            Samples per second of all ranks.
        """
        means = {name: total / self._steps for name, total in self._sums.items()}
        rate = means.pop("samples") / means["seconds"]
        values: dict[str, Value] = {
            "rank": self._communicator.rank,
            "world_size": self._communicator.world_size,
            "step": number,
            "steps": self._steps,
            **means,
            "samples_per_second": rate,
            "memory_bytes": self._process.memory_info().rss,
            "device_memory_bytes": self._device_memory(),
            "host": self._host,
        }
        self._listen(Event("train", "worker", values))
        self._steps = 0
        self._sums.clear()
        return rate * self._communicator.world_size

    def _device_memory(self) -> int | None:
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else None
