"""Artefacts that are made again beside the old ones, which stay whole until the new ones take their place.

New artefacts are made in the folder `redo/` of the workspace, and one small file there says which. Once a run has
ended, that file names those that replace the old ones: with this single write all of them change places for every
reader, and moving the folders afterwards may be interrupted and continued. This module knows the names of artefacts
and not their contents.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from alphafuse.errors import WorkspaceError
from alphafuse.stages import ARTIFACTS
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.manifest import MANIFEST, MANIFEST_COPY, read_json_object
from alphafuse.storage.ownership import Guard

REDO = "redo"
"""Folder of a workspace in which artefacts are made again."""
STATE = "redo.json"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class _State:
    """The content of `redo.json`: names of artefacts.

    Attributes:
        pending: artefacts that are made again; the old ones are in use.
        reusing: those of them whose stage may take over content of the old one.
        taking: finished artefacts that are in use and whose folders replace the old ones.
    """

    pending: tuple[str, ...] = ()
    reusing: tuple[str, ...] = ()
    taking: tuple[str, ...] = ()


class Redo:
    """The artefacts of one workspace that are made again. Picklable.

    Args:
        workspace: folder of the workspace.
        guard: of the run that owns the workspace and makes artefacts again; None for all others, who read the old ones
            until it has ended.
    """

    def __init__(self, workspace: Folder, guard: Guard | None = None) -> None:
        self.folder = workspace / REDO
        self._workspace = workspace
        self._guard = guard
        self._state, self._damage = _State(), ""
        if self.folder.exists(STATE):
            try:
                self._state = _checked(read_json_object(self.folder.read_bytes(STATE)))
            except (IsADirectoryError, ValueError) as error:
                self._damage = str(error)

    @property
    def pending(self) -> tuple[str, ...]:
        """Names of the artefacts that are made again and are not in use yet."""
        return self._intact.pending

    def place(self, name: str) -> Folder:
        """The folder of an artefact."""
        state, again = self._intact, self.folder / name
        if (self._guard is not None and name in state.pending) or (name in state.taking and again.exists(MANIFEST)):
            return again
        return self._workspace / name

    def reused(self, name: str) -> Folder | None:
        """The folder of an old artefact of which the new one may take over content; None: there is none."""
        return self._workspace / name if name in self._intact.reusing else None

    @property
    def checkpoints(self) -> Folder:
        """The folder of the checkpoints of an unfinished training."""
        again = self._guard is not None and "model" in self._intact.pending
        return (self.folder if again else self._workspace) / CHECKPOINTS

    def begin(self, names: Sequence[str], reusing: Sequence[str]) -> None:
        """Make artefacts again from now on. What an earlier, interrupted redo has made of them is deleted, the latest
        first: after an interruption nothing is left that was made from a deleted artefact.

        Args:
            names: artefacts in the order in which they are made.
            reusing: those of them whose stage may take over content, of the old one and of the interrupted redo.

        Raises:
            OwnershipError: another process has taken the workspace over.
        """
        self.finish_taking()
        for name in reversed(names):
            if name == "model":
                (self.folder / CHECKPOINTS).delete()
            if name not in reusing:
                _delete(self.folder / name)
        state = self._state
        kept = [name for name in state.reusing if name not in names]
        self._write(_State(_ordered([*state.pending, *names]), _ordered([*kept, *reusing])))

    def take(self) -> None:
        """Let all artefacts that are finished replace the old ones. Those that are not finished stay pending where
        there is an old one. Raises as `begin` does."""
        self.finish_taking()
        finished = [name for name in self.pending if (self.folder / name).exists(MANIFEST)]
        left = [name for name in self.pending if name not in finished and self._is_begun(name)]
        reusing = [name for name in self._state.reusing if name in left]
        self._write(_State(tuple(left), tuple(reusing), tuple(finished)))
        self.finish_taking()

    def finish_taking(self) -> None:
        """Move the artefacts that are in use to the places of the old ones, whose folders are deleted; and delete what
        a redo has left that was interrupted at its very beginning.

        Raises:
            OwnershipError: another process has taken the workspace over.
        """
        if self._guard is not None:
            self._guard.require()
        if not self._intact.taking and self.pending:
            return
        for name in self._state.taking:
            if (self.folder / name).exists(MANIFEST):  # else it was moved before an interruption
                _delete(self._workspace / name)
                (self.folder / name).move_to(self._workspace / name, last=(MANIFEST, MANIFEST_COPY))
            if name == "model":
                (self._workspace / CHECKPOINTS).delete()  # of a training that this model replaces
        if self.pending:
            self._write(_State(self.pending, self._state.reusing))
        else:
            self.folder.delete()
            self._state = _State()

    def _is_begun(self, name: str) -> bool:
        return bool((self._workspace / name).names() or (self.folder / name).names())

    @property
    def _intact(self) -> _State:
        """The state.

        Raises:
            WorkspaceError: its file is damaged.
        """
        if self._damage:
            raise WorkspaceError(
                f"{self.folder.uri}/{STATE} cannot be used: {self._damage}.",
                f"It says which artefacts are made again in {self.folder.uri}. Move the artefacts that are missing "
                "beside this folder out of it, and delete it",
            )
        return self._state

    def _write(self, state: _State) -> None:
        self.folder.write_bytes(STATE, json.dumps(asdict(state), indent=1).encode())
        self._state = state


def _delete(folder: Folder) -> None:
    """Delete an artefact, its manifest first, so that after an interruption it does not look complete."""
    folder.delete_files([MANIFEST_COPY, MANIFEST])
    folder.delete()


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    wanted = set(names)
    return tuple(name for name in ARTIFACTS if name in wanted)


def _checked(content: Mapping[str, object]) -> _State:
    """The state in a JSON object.

    Raises:
        ValueError: a list is missing, or a name is not that of an artefact.
    """
    lists = [content.get(field) for field in ("pending", "reusing", "taking")]
    names = []
    for value in lists:
        if not isinstance(value, list) or any(name not in ARTIFACTS for name in value):
            raise ValueError("it holds no lists of artefacts")
        names.append(tuple(value))
    return _State(*names)
