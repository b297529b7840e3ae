"""Checkpoints of an unfinished training: every rank's table rows and moments, the dense state, the position.

A checkpoint is an artefact of its own (`checkpoints/step-NNNNNNNNN`), committed by its manifest once every rank has
written its part, and loads onto any number of ranks. safetensors and JSON only. Training waits while its state is
copied to the memory of the host; a thread of every rank writes the copy.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import StaleError, WorkspaceError
from alphafuse.items.item_table import ItemTable
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.manifest import Manifest, fingerprint
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.background import Background
from alphafuse.training.checkpoints.table_rows import RowFile, copy_rows, fill_table_rows, read_table_rows, row_files

if TYPE_CHECKING:
    from alphafuse.training.engine import DenseEngine
    from alphafuse.training.weight_average import WeightAverage

DENSE_FILE = "dense.safetensors"


@dataclass(frozen=True)
class Written:
    """A checkpoint that is committed.

    Attributes:
        step: number of steps taken before the checkpoint.
        seconds: time from its beginning until it was committed.
        waited: seconds that training stood still for it.
        bytes: size of all ranks' files.
    """

    step: int
    seconds: float
    waited: float
    bytes: int


class Checkpoints:
    """The checkpoints of one training, made from `inputs`. Making the object is a collective."""

    def __init__(self, workspace: Workspace, inputs: dict[str, Any], communicator: Communicator) -> None:
        self._folder: Folder = workspace.checkpoints
        self._guard = workspace.guard
        self._inputs = inputs
        self._fingerprint = fingerprint(inputs)
        self._communicator = communicator
        self._writers = communicator.apart("checkpoints")
        self._background = Background("checkpoint")
        self._files: list[RowFile] | None = None
        self._written: deque[Written] = deque()

    def at(self, step: int) -> Artifact:
        return Artifact(self._folder / f"step-{step:09d}", "checkpoint", "train", self._guard)

    def restore(
        self, table: ItemTable, engine: DenseEngine, average: WeightAverage | None
    ) -> tuple[Manifest | None, list[str]]:
        """Put the state of the newest checkpoint that is whole, as are those that it needs, into this rank's table,
        engine and average. A collective. Each file is read once: those of a needed checkpoint by one rank, those with
        rows by the ranks that own some of them.

        Returns:
            Manifest of the checkpoint, with the `progress` given to `save` among its `details`, or None where there is
            none; and the damaged files of newer checkpoints: where there are some and no checkpoint, the table may hold
            a part of one.

        Raises:
            WorkspaceError: a checkpoint was made from other inputs.
        """
        damaged: list[str] = []
        for step in reversed(self._steps()):
            try:
                if not self.at(step).is_committed(self._inputs):
                    continue
                manifest = self.at(step).require()
            except StaleError:
                raise
            except WorkspaceError:  # its manifest is damaged
                damaged.append(self.at(step).folder.uri)
                continue
            needed = sorted(set(_needs(manifest)) - {step})
            found = [file for other in needed for file in self._damaged_files(other)]
            found = found or self._fill(step, manifest, table, engine, average)
            if not found:
                return manifest, damaged
            damaged += found
        return None, damaged

    def save(
        self,
        step: int,
        table: ItemTable,
        engine: DenseEngine,
        average: WeightAverage | None,
        progress: dict[str, Any],
        needs: Iterable[int],
    ) -> None:
        """Begin the checkpoint of `step`: it is written in the background, and then takes the place of all others that
        it does not need. A collective: every rank writes its rows, rank 0 the rest.

        The one before is waited for; if it could not be written, its error is raised here.

        Args:
            progress: where the training stands, as plain values.
            needs: steps of other checkpoints without which this one is of no use.

        Raises:
            OwnershipError: another process has taken the workspace over.
        """
        started = time.monotonic()
        self._background.wait()
        if self._communicator.rank == 0:
            self.at(step).require_own()  # here rather than in the background: training stops at once
        tensors = _tensors(table, average)
        if self._files is None:  # kept: memory that a GPU copies to is slow to come by
            self._files = list(row_files(table.first_row, tensors))
        copy_rows(self._files, table.first_row, tensors)
        dense = engine.state() | (average.state() if average else {})
        steps = {"table_steps": table.optimizer.steps, "averaged_steps": average.steps if average else None}
        details = {**progress, **steps, "needs": sorted(needs)}
        waited = time.monotonic() - started
        self._background.start(lambda: self._write(step, dense, details, table.num_items, started, waited))

    def wait(self) -> None:
        """Wait until every checkpoint is committed; raises the error of one that could not be written."""
        self._background.wait()

    def close(self) -> None:
        """Wait until nothing is written any more, and write no more. An error is lost: either `wait` has raised it, or
        the training has failed for another reason."""
        self._background.close()

    def written(self) -> list[Written]:
        """The checkpoints that were committed since the last call; on rank 0 alone."""
        return [self._written.popleft() for _ in range(len(self._written))]

    def load(self, step: int, table: ItemTable, engine: DenseEngine, average: WeightAverage | None) -> None:
        """Put the state of `step` into this rank's table, engine and average. A collective."""
        artifact = self.at(step)
        read_table_rows(artifact, table.first_row, _tensors(table, average))
        content = artifact.read_file(DENSE_FILE) if self._communicator.rank == 0 else None
        self._set_rest(artifact.require(), self._communicator.broadcast_object(content), table, engine, average)

    def _fill(
        self, step: int, manifest: Manifest, table: ItemTable, engine: DenseEngine, average: WeightAverage | None
    ) -> list[str]:
        """Do the work of `load` for `restore`; returns the damaged files, as found by all ranks."""
        artifact, content = self.at(step), None
        damaged = fill_table_rows(artifact, table.first_row, _tensors(table, average))
        if self._communicator.rank == 0:
            dense = manifest.file(DENSE_FILE)
            content = None if dense is None else artifact.read_if_whole(dense)
            damaged += [DENSE_FILE] * (content is None)
        found = sorted({name for part in self._communicator.gather_objects(damaged) for name in part})
        if not found:
            self._set_rest(manifest, self._communicator.broadcast_object(content), table, engine, average)
        return [f"{artifact.folder.uri}/{name}" for name in found]

    def _set_rest(
        self,
        manifest: Manifest,
        content: bytes | None,
        table: ItemTable,
        engine: DenseEngine,
        average: WeightAverage | None,
    ) -> None:
        assert content is not None  # rank 0 has read it
        dense = safetensors.torch.load(content)
        table.optimizer.steps = manifest.details["table_steps"]
        engine.load_state(dense)
        if average:
            average.load_state(dense, manifest.details["averaged_steps"])

    def _write(
        self,
        step: int,
        dense: dict[str, torch.Tensor],
        details: dict[str, Any],
        num_items: int,
        started: float,
        waited: float,
    ) -> None:
        """Write and commit the checkpoint of `step`, in the thread of every rank; raises on all ranks if one fails."""
        artifact, first = self.at(step), self._writers.rank == 0

        def write() -> None:
            for file in self._files or ():
                file.write(artifact, self._fingerprint)
            if first:
                artifact.write_file(DENSE_FILE, safetensors.torch.save(dense), self._fingerprint)

        def commit() -> None:
            manifest = artifact.commit(self._inputs, details, rows=num_items)
            size = sum(file.bytes for file in manifest.files)
            self._written.append(Written(step, time.monotonic() - started, waited, size))
            self._keep_only({step, *details["needs"]})

        # An interrupted attempt may have left files, perhaps of another number of ranks.
        for task in (artifact.clear if first else None, write, commit if first else None):
            self._together(task)

    def _together(self, task: Callable[[], None] | None) -> None:
        """Do this rank's part of a task, and wait for the others; raises on all ranks if one fails."""
        failure: Exception | None = None
        try:
            if task is not None:
                task()
        except Exception as error:
            failure = error
        failed = [text for text in self._writers.gather_objects(repr(failure) if failure else "") if text]
        if failure is not None:
            raise failure
        if failed:
            # Not an error that a user can cure: that one is raised by the rank that has met it.
            raise RuntimeError(f"another rank could not write the checkpoint: {failed[0]}")

    def _keep_only(self, steps: set[int]) -> None:
        """Delete all other checkpoints."""
        for step in self._steps():
            if step not in steps:
                self.at(step).clear()

    def _steps(self) -> list[int]:
        return [int(name.removeprefix("step-")) for name in self._folder.names() if re.fullmatch(r"step-\d{9,}", name)]

    def _damaged_files(self, step: int) -> list[str]:
        """Files of a checkpoint that differ from what was committed. A collective: each rank reads some of them."""
        artifact, ranks = self.at(step), self._communicator.world_size
        try:
            manifest = artifact.manifest()
        except WorkspaceError:
            manifest = None
        files = [] if manifest is None else manifest.files
        own = [file.name for file in files[self._communicator.rank :: ranks] if artifact.fault(file)]
        found = [f"{artifact.folder.uri}/{name}" for part in self._communicator.gather_objects(own) for name in part]
        return found if manifest is not None else [artifact.folder.uri]


def _tensors(table: ItemTable, average: WeightAverage | None) -> dict[str, torch.Tensor]:
    tensors = {"rows": table.trainable, "first_moment": table.first_moment, "second_moment": table.second_moment}
    return tensors | ({"average": average.rows} if average else {})


def _needs(checkpoint: Manifest) -> list[int]:
    """Steps of the checkpoints that this one needs. Those of version 0.1.0 do not name them: they need the one
    of the best weights."""
    best = checkpoint.details.get("best")
    needs: list[int] = checkpoint.details.get("needs", [best["step"]] if best else [])
    return needs
