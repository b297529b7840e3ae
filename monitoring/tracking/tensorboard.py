"""Writes curves for TensorBoard: a folder for each training. A continued training goes on in its folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from alphafuse.storage.filesystem.folder import Folder, resolve


class TensorBoardSink:
    """`Sink` that writes the event files of TensorBoard.

    Args:
        folder: folder or URI that holds the folders of a run's trainings.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Folder(resolve(folder))
        self._writer: Any = None

    def begin(self, is_new: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter  # an extra of the package

        known = self._folder.names()
        name = time.strftime("%Y-%m-%d_%H-%M-%S") if is_new or not known else known[-1]
        self._writer = SummaryWriter((self._folder / name).uri)

    def log(self, step: int, numbers: Mapping[str, float], time: float) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step, walltime=time)
        self._writer.flush()

    def end(self, failed: bool) -> None:
        self._writer.close()
