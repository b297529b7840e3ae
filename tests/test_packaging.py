"""The wheel in an environment of its own: what the core can do, and what it says of everything else."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.workspaces.exported_model import exported

import alphafuse
from alphafuse.extras import missing_package

ROOT = Path(__file__).parents[1]
PACKAGES = ("alphafuse", "cluster", "jobs", "monitoring")


@dataclass
class Installed:
    """An environment with the wheel and the packages that its core requires, and nothing else."""

    wheel: Path
    folder: Path

    def run(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [self.folder / "bin" / program, *arguments]
        # Not in the checkout, whose packages would be found first.
        return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=self.folder)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("packaging")
    (folder / "sources").mkdir()
    for name in PACKAGES:  # a copy, since the build leaves files beside its sources
        shutil.copytree(ROOT / name, folder / "sources" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "sources")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, folder / "sources"]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)
    install = ["install", "--quiet", "--no-compile", "--constraint", ROOT / "constraints.txt", wheel]
    subprocess.run([folder / "environment" / "bin" / "pip", *install], check=True, capture_output=True)
    return Installed(wheel, folder / "environment")


@pytest.mark.engine
def test_the_wheel_holds_the_packages_and_the_licence(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    (info,) = {name.split("/")[0] for name in names} - {*PACKAGES}
    assert f"{info}/licenses/LICENSE" in names
    assert "monitoring/report/templates/report.html" in names
    metadata = zipfile.ZipFile(installed.wheel).read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata


@pytest.mark.engine
def test_the_core_loads_and_recommends(installed: Installed, tmp_path: Path) -> None:
    config = exported(tmp_path / "run")
    export = Path(config.workspace) / "export"
    histories = [["item 3", "item 5"], ["item 7"]]
    code = f"""
import importlib.util, alphafuse
assert not any(map(importlib.util.find_spec, ("ray", "deepspeed", "pandas", "sentence_transformers")))
for found in alphafuse.load({str(export)!r}).recommend({histories!r}, 4):
    print(*(item.item_id for item in found), sep=",")
"""
    done = installed.run("python", "-c", code)
    assert done.returncode == 0, done.stderr
    expected = alphafuse.load(export).recommend(histories, 4)
    assert done.stdout.splitlines() == [",".join(item.item_id for item in found) for found in expected]


@pytest.mark.engine
def test_what_needs_more_names_the_extra(installed: Installed, tmp_path: Path) -> None:
    assert installed.run("alphafuse", "--version").stdout == f"alphafuse {importlib.metadata.version('alphafuse')}\n"
    wanted = {
        ("run", ROOT / "configs" / "quickstart.yaml"): "train",
        ("compare", ROOT / "configs" / "grids" / "quickstart.yaml"): "train",
        ("tune", ROOT / "configs" / "quickstart.yaml", ROOT / "configs" / "spaces" / "small.yaml"): "train",
        ("dashboard", tmp_path): "dashboard",
        ("jobs",): "train",
    }
    for arguments, extra in wanted.items():
        done = installed.run("alphafuse", *arguments)
        assert done.returncode == 1, arguments
        assert done.stderr.endswith(f"which is not installed: pip install 'alphafuse[{extra}]'\n"), done.stderr
        assert len(done.stderr.splitlines()) == 1
    python = installed.run("python", "-c", "import alphafuse; alphafuse.Run")
    assert "MissingPackageError" in python.stderr.splitlines()[-1]


def test_packages_that_no_extra_brings_are_left_to_python() -> None:
    assert missing_package(ModuleNotFoundError("No module named 'shop'", name="shop.encoders")) is None
    assert missing_package(ModuleNotFoundError("No module named 'alphafuse.x'", name="alphafuse.x")) is None
    extras = {"sentence_transformers.util": "train", "ray": "train", "optuna": "tune", "starlette.x": "serve"}
    for name, extra in extras.items():
        assert str(missing_package(ModuleNotFoundError(name=name))).endswith(f"pip install 'alphafuse[{extra}]'")
    both = str(missing_package(ModuleNotFoundError(name="vllm")))
    assert both.endswith("pip install 'alphafuse[cpu]' or pip install 'alphafuse[gpu]'")
