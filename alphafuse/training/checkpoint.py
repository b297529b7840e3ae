"""Checkpoints of an unfinished training: every rank's table rows and moments, the dense state, the position.

A checkpoint is an artefact of its own (`checkpoints/step-NNNNNNNNN`), committed by its manifest once every rank has
written its part, and loads onto any number of ranks. safetensors and JSON only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import StaleError, WorkspaceError
from alphafuse.items.item_table import ItemTable
from alphafuse.storage.artifact import Artifact
from alphafuse.storage.folder import Folder
from alphafuse.storage.manifest import Manifest, fingerprint
from alphafuse.storage.workspace import Workspace
from alphafuse.training.table_rows import read_table_rows, write_table_rows

if TYPE_CHECKING:
    from alphafuse.training.engine import DenseEngine

DENSE_FILE = "dense.safetensors"


class Checkpoints:
    """The checkpoints of one training, made from `inputs`."""

    def __init__(self, workspace: Workspace, inputs: dict[str, Any], communicator: Communicator) -> None:
        self._folder: Folder = workspace.checkpoints
        self._guard = workspace.guard
        self._inputs = inputs
        self._fingerprint = fingerprint(inputs)
        self._communicator = communicator

    def at(self, step: int) -> Artifact:
        return Artifact(self._folder / f"step-{step:09d}", "checkpoint", "train", self._guard)

    def latest(self) -> tuple[Manifest | None, list[str]]:
        """Find the newest checkpoint that is whole, as are those that it needs.

        A collective: each rank reads some of the files.

        Returns:
            Manifest of the checkpoint, with the `progress` given to `save` among its `details`, or None where there is
            none; and the damaged files of newer checkpoints.

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
            found = [file for other in sorted({step, *_needs(manifest)}) for file in self._damaged_files(other)]
            if not found:
                return manifest, damaged
            damaged += found
        return None, damaged

    def save(
        self, step: int, table: ItemTable, engine: DenseEngine, progress: dict[str, Any], needs: Iterable[int]
    ) -> None:
        """Write the checkpoint of `step`. A collective: every rank writes its rows, rank 0 the rest.

        Args:
            progress: where the training stands, as plain values.
            needs: steps of other checkpoints without which this one is of no use.
        """
        artifact = self.at(step)
        if self._communicator.rank == 0:
            artifact.clear()  # an interrupted attempt may have left files, perhaps of another world size
        self._communicator.barrier()
        write_table_rows(artifact, self._fingerprint, table.first_row, _tensors(table))
        dense = engine.state()
        if self._communicator.rank == 0:
            artifact.write_file(DENSE_FILE, safetensors.torch.save(dense), self._fingerprint)
        self._communicator.barrier()
        if self._communicator.rank == 0:
            details = {**progress, "table_steps": table.optimizer.steps, "needs": sorted(needs)}
            artifact.commit(self._inputs, details, rows=table.num_items)
        self._communicator.barrier()

    def load(self, step: int, table: ItemTable, engine: DenseEngine) -> None:
        """Put the state of `step` into this rank's table and engine."""
        artifact = self.at(step)
        read_table_rows(artifact, table.first_row, _tensors(table))
        table.optimizer.steps = artifact.require().details["table_steps"]
        engine.load_state(safetensors.torch.load(artifact.read_file(DENSE_FILE)))

    def keep_only(self, steps: set[int]) -> None:
        """Delete all other checkpoints. Rank 0 does it; the others need not wait."""
        if self._communicator.rank == 0:
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


def _tensors(table: ItemTable) -> dict[str, torch.Tensor]:
    return {"rows": table.trainable, "first_moment": table.first_moment, "second_moment": table.second_moment}


def _needs(checkpoint: Manifest) -> list[int]:
    """Steps of the checkpoints that this one needs. Those of version 0.1.0 do not name them: they need the one
    of the best weights."""
    best = checkpoint.details.get("best")
    needs: list[int] = checkpoint.details.get("needs", [best["step"]] if best else [])
    return needs
