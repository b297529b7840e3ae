"""The files of a finished workspace, changed anywhere: `verify` names them, and no command reads them wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from benchmarks.damage import DamagedRuns
from benchmarks.fuzzing.damage import Change, applied, changes
from benchmarks.fuzzing.exploration import Outcome, Target

WITHOUT_RESULTS = ("events/", "logs/", "config.yaml")
"""Files on which no result depends: one valid content of theirs may become another unseen."""


@dataclass(frozen=True)
class WorkspaceFile:
    """A file of a workspace, and changes of it.

    Attributes:
        source: another file whose content takes its place before the changes; None: its own.
    """

    file: str
    source: str | None
    damage: tuple[Change, ...]


def targets(runs: DamagedRuns) -> list[Target]:
    """The targets of one finished workspace."""
    files = sorted({case.file for case in runs.cases()})
    cases = st.builds(
        WorkspaceFile,
        st.sampled_from(files),
        st.one_of(st.none(), st.none(), st.none(), st.sampled_from(files)),
        st.lists(changes, min_size=1, max_size=2).map(tuple),
    )

    def check(case: WorkspaceFile, _: Path) -> Outcome:
        runs.restore()
        path = runs.path / case.file
        whole = path.read_bytes()
        content = whole if case.source is None else (runs.path / case.source).read_bytes()
        damaged = applied(list(case.damage), content)
        path.write_bytes(damaged)
        if wrong := runs.misread():
            raise AssertionError(wrong)
        if damaged == whole or (path.suffix == ".json" and _says_the_same(damaged, whole)):
            return "right"
        if not runs.names(case.file):
            assert case.file.startswith(WITHOUT_RESULTS), "verify does not name it"
            return "right"
        return "refused"

    return [Target("files of a workspace", cases, check)]


def _says_the_same(damaged: bytes, whole: bytes) -> bool:
    """Tell whether two JSON files have the same values, though blanks or repeated keys differ."""
    try:
        return bool(json.loads(damaged) == json.loads(whole))
    except ValueError:
        return False
