"""Reports the steps of a rank: each one, and now and then their means."""

from __future__ import annotations

import socket

import psutil
import torch

from alphafuse.data.sampling.batches import Batch
from alphafuse.distributed.communicator import Communicator
from alphafuse.events import MEASURED, Listener, StepMeans, StepTaken


class StepReporter:
    """Emits `StepTaken` after each step of this rank, and `StepMeans` when asked.

    Args:
        communicator: its timer measures the steps.
        device: whose memory is reported.
    """

    def __init__(self, communicator: Communicator, device: torch.device, listen: Listener) -> None:
        self._communicator = communicator
        self._device = device
        self._listen = listen
        self._process = psutil.Process()
        self._host = socket.gethostname()
        self._steps = self._samples = 0
        self._sums = dict.fromkeys(MEASURED, 0.0)

    def end_step(self, number: int, batches: list[Batch]) -> None:
        """The step `number` is over; `batches` were this rank's part of it."""
        taken = self._communicator.timer.end_step()
        measured = {name: taken.get(name, 0.0) for name in MEASURED}
        samples = sum(len(batch.histories) for batch in batches)
        self._steps += 1
        self._samples += samples
        for name, value in measured.items():
            self._sums[name] += value
        self._listen(StepTaken("train", rank=self._communicator.rank, step=number, samples=samples, **measured))

    def report(self, number: int) -> float:
        """Emit the means over the steps since the last report, the last of which was `number`.

        Returns:
            Samples per second of all ranks.
        """
        rate = self._samples / self._sums["seconds"]
        means = StepMeans(
            "train",
            rank=self._communicator.rank,
            step=number,
            world_size=self._communicator.world_size,
            steps=self._steps,
            samples_per_second=rate,
            memory_bytes=self._process.memory_info().rss,
            device_memory_bytes=self._device_memory(),
            host=self._host,
            **{name: total / self._steps for name, total in self._sums.items()},
        )
        self._listen(means)
        self._steps = self._samples = 0
        self._sums = dict.fromkeys(MEASURED, 0.0)
        return rate * self._communicator.world_size

    def _device_memory(self) -> int | None:
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else None
