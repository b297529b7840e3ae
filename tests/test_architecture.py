"""Checks docs/architecture.md: its files exist, its walks are short, and imports run one way."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

LAYERS = (
    ("alphafuse.errors",),
    ("alphafuse.events", "alphafuse.extras"),
    ("alphafuse.config",),
    ("alphafuse.stages",),
    ("alphafuse.storage",),
    ("alphafuse.tuning",),
    ("alphafuse.distributed", "alphafuse.data", "alphafuse.kernels"),
    ("alphafuse.language", "alphafuse.nullspace"),
    ("alphafuse.items",),
    ("alphafuse.recommenders",),
    ("alphafuse.losses", "alphafuse.evaluation"),
    ("alphafuse.registry",),
    ("alphafuse.training", "alphafuse.inputs", "alphafuse.parent", "alphafuse.serving"),
    ("alphafuse.version_comparison",),
    ("monitoring.presentation", "monitoring.metrics", "monitoring.grafana"),
    ("monitoring.run_log",),
    ("monitoring.terminal", "monitoring.tracking", "monitoring.report"),
    ("monitoring.comparison", "monitoring.dashboard"),
    ("jobs.execution",),
    ("jobs.preflight", "jobs.serving", "jobs.stages", "jobs.synth"),
    ("jobs.pipeline", "jobs.add_items"),
    ("jobs.comparison",),
    ("jobs.tuning",),
    ("cluster.launch",),
    ("cluster.remote",),
    ("cluster.cli", "cluster.python"),
)
"""Folders and modules of the packages, lowest first: each imports from lower layers alone."""
PACKAGES = {"alphafuse": (), "monitoring": ("alphafuse",), "jobs": ("alphafuse", "monitoring")}
"""Packages with the others that they may import; `cluster` may import all."""


def _modules(*others: str) -> Iterator[tuple[str, Path]]:
    """Modules of the four packages and of other folders, with their files."""
    for package in ("alphafuse", "monitoring", "jobs", "cluster", *others):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


def _imports(path: Path) -> Iterator[str]:
    """Modules that a file imports when it runs; imports for type checkers alone are left out."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _layer(module: str) -> int | None:
    """The layer of a module; None for modules of other projects and for the packages themselves."""
    names = ".".join(module.split(".")[:2])
    return next((number for number, layer in enumerate(LAYERS) if names in layer), None)


def _walks() -> dict[str, list[str]]:
    """The files of each numbered list of the page, by the words before it."""
    walks: dict[str, list[str]] = {}
    for heading, body in re.findall(r"^## (Walk \d: [^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL):
        for number, path in re.findall(r"^(\d+)\. `([^`]+)`", body, re.MULTILINE):
            part = f"{heading} #{sum(name.startswith(heading) for name in walks) + (number == '1')}"
            walks.setdefault(part, []).append(path)
    return walks


def test_every_layer_is_a_part_of_the_tree() -> None:
    parts = {".".join(module.split(".")[:2]) for module, _ in _modules()} - {
        f"{package}.__init__" for package in ("alphafuse", "monitoring", "jobs", "cluster")
    }
    assert parts == {name for layer in LAYERS for name in layer}


def test_imports_run_one_way() -> None:
    wrong = []
    for module, path in _modules():
        own = _layer(module)
        for imported in _imports(path):
            package, other = imported.split(".")[0], _layer(imported)
            if module.split(".")[:2] == imported.split(".")[:2] or other is None or own is None:
                continue
            allowed = PACKAGES.get(module.split(".")[0], ("alphafuse", "monitoring", "jobs"))
            if other >= own or package not in (module.split(".")[0], *allowed):
                wrong.append(f"{module} imports {imported}")
    assert wrong == []


def test_private_interfaces_of_ray_are_imported_in_one_file() -> None:
    private = {
        module
        for module, path in _modules("benchmarks", "docs", "tests")
        for name in _imports(path)
        if re.match(r"ray\.(.*\.)?_[a-z]", name)
    }
    assert private <= {"jobs.execution.ray_internals"}


def test_deepspeed_is_imported_by_the_engine_alone() -> None:
    assert {module for module, path in _modules() if "deepspeed" in {*_imports(path)}} == {"alphafuse.training.engine"}


def test_the_files_that_the_page_names_exist() -> None:
    named = set(re.findall(r"`((?:alphafuse|jobs|cluster|monitoring)/[^`\s]*)`", PAGE))
    assert len(named) > 40
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
    folders = re.findall(r"^ {4,8}([a-z_]+)/ ", PAGE, re.MULTILINE)
    there = {path.name for package in (*PACKAGES, "cluster") for path in (ROOT / package).rglob("*") if path.is_dir()}
    assert {*folders} <= there


@pytest.mark.parametrize(("walk", "most"), [("Walk 1", [25]), ("Walk 2", [6]), ("Walk 3", [4, 8])])
def test_walks_are_short(walk: str, most: list[int]) -> None:
    lengths = [len(files) for heading, files in _walks().items() if heading.startswith(walk)]
    assert len(lengths) == len(most)
    assert all(0 < length <= limit for length, limit in zip(lengths, most, strict=True))
