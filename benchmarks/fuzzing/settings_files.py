"""Configurations and grids, damaged as texts and as trees: each is refused by name, or says what its file says."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from alphafuse.config import load_config, load_grid
from alphafuse.errors import AlphafuseError
from benchmarks.fuzzing.damage import Change, applied, changes
from benchmarks.fuzzing.exploration import Outcome, Target, refusal

CONFIGS = Path(__file__).parents[2] / "configs"
VALUES: list[Any] = [
    None, True, 0, -1, 10**400, 1e308, math.nan, math.inf, "", "x" * 50_000, "../../etc/passwd", "\x1b[31mred",
    "$(touch x)", [], {}, [[[[]]]], {"a": {"b": 1}}, [None, 1, "x"], "2026-11-28", b"bytes",
]  # fmt: skip
"""Values that some setting will not like."""


@dataclass(frozen=True)
class SettingsFile:
    """A file of settings, and what is changed in it.

    Attributes:
        name: file below `configs/`.
        values: for settings by their number (modulo), which of `VALUES` stands in their place.
    """

    name: str
    values: tuple[tuple[int, int], ...]
    damage: tuple[Change, ...]

    def content(self) -> bytes:
        """The bytes of the file."""
        tree = yaml.safe_load((CONFIGS / self.name).read_text(encoding="utf-8"))
        for number, value in self.values:
            leaves = list(_leaves(tree))
            holder, key, _ = leaves[number % len(leaves)]
            holder[key] = copy.deepcopy(VALUES[value % len(VALUES)])
        return applied(list(self.damage), yaml.safe_dump(tree, sort_keys=False).encode())


def _leaves(tree: Any) -> Iterator[tuple[Any, Any, Any]]:
    """The holder, key and value of every setting that holds no further ones."""
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        if isinstance(value, dict | list) and value:
            yield from _leaves(value)
        else:
            yield tree, key, value


def _cases(names: list[str]) -> st.SearchStrategy[SettingsFile]:
    numbers = st.tuples(st.integers(0, 99), st.integers(0, len(VALUES) - 1))
    return st.builds(
        SettingsFile,
        st.sampled_from(names),
        st.lists(numbers, max_size=2).map(tuple),
        st.lists(changes, max_size=1).map(tuple),
    )


def _check(load: Callable[[Path], Any]) -> Callable[[SettingsFile, Path], Outcome]:
    def check(case: SettingsFile, folder: Path) -> Outcome:
        configs = folder / "configs"
        if not configs.exists():
            shutil.copytree(CONFIGS, configs)  # a grid names its configuration
        path = configs / "grids" / "fuzzed.yaml" if "/" in case.name else configs / "fuzzed.yaml"
        path.write_bytes(case.content())
        try:
            loaded = load(path)
        except AlphafuseError as error:
            return refusal(error)
        _require_said(yaml.safe_load(path.read_text(encoding="utf-8")), loaded)
        return "right"

    return check


def _require_said(tree: dict[str, Any], loaded: dict[str, Any]) -> None:
    """Check that every setting of a file has the value that the file gives it."""
    for key, value in tree.items():
        assert key in loaded, f"the key {key!r} is lost"
        if isinstance(value, dict) and isinstance(loaded[key], dict):
            _require_said(value, loaded[key])
        elif isinstance(value, int | float | str) and not isinstance(loaded[key], dict | list):
            assert str(loaded[key]) == str(value) or loaded[key] == value, f"{key}: {value!r} became {loaded[key]!r}"


RUNS = sorted(path.name for path in CONFIGS.glob("*.yaml"))
GRIDS = sorted(f"grids/{path.name}" for path in (CONFIGS / "grids").glob("*.yaml"))
TARGETS = [
    Target("settings of a run", _cases(RUNS), _check(lambda path: load_config(path).model_dump(mode="json"))),
    Target("settings of a comparison", _cases(GRIDS), _check(lambda path: load_grid(path)[0].model_dump(mode="json"))),
]
