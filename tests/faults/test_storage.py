"""Storage that is full, that flips a bit of a committed file, and that fails for a moment."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from support.faults import flaky_storage
from support.faults.flaky_storage import FlakyFileSystem
from support.processes.gloo_workers import train_without_ray, without_ray
from support.processes.multi_process import run_ranks
from support.workspaces import embed_cases
from support.workspaces.embed_cases import CONFIG, DIM, HashEncoder, write_catalog
from support.workspaces.tiny_workspace import tiny_config, tiny_workspace

from alphafuse.config import Config, parse_config
from alphafuse.errors import ResourceError, WorkspaceError
from alphafuse.events import ignore
from alphafuse.storage.filesystem import retries
from alphafuse.storage.verification import examine
from alphafuse.storage.workspace import Workspace
from alphafuse.training.loop import Trainer
from jobs.stages import decompose, evaluate, export, recommend, train
from jobs.stages.embed import embed

ray.cloudpickle.register_pickle_by_value(embed_cases)  # the workers cannot import modules of the tests


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"file systems cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    # Unmounted lazily, since a reader may still map a file of it.
    ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(folder), 2)


def _sums(workspace: Workspace, names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    artifacts = {name: workspace.artifact(name) for name in names}
    for artifact in artifacts.values():
        artifact.verify()
    return {name: {file.name: file.sha256 for file in a.require().files} for name, a in artifacts.items()}


def _config(workspace: Path | str) -> Config:
    config = tiny_config(Path("unused"), checkpoint_steps=2, max_epochs=3)
    return config.model_copy(update={"workspace": str(workspace)})


def _train_on_a_disk_that_fills_up(config: Config, ballast: Path) -> str:
    """Train; returns the error of the stage."""
    take_step = Trainer.training_step

    def filling_step(self: Trainer, plan: Any) -> Any:
        if plan.number == 5:
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(1024)):
                    pass
        return take_step(self, plan)

    with without_ray() as patch:
        patch.setattr(Trainer, "training_step", filling_step)
        try:
            train.run(config, Workspace(config.workspace), ignore)
        except ResourceError as error:
            return str(error)
    return "nothing"


@pytest.mark.distributed
def test_a_disk_that_fills_up_while_a_checkpoint_is_committed(tmp_path: Path, small_disk: Path) -> None:
    undisturbed = tiny_workspace(tmp_path / "undisturbed")
    run_ranks(1, train_without_ray, _config(tmp_path / "undisturbed"))
    workspace, config, ballast = tiny_workspace(small_disk / "run"), _config(small_disk / "run"), small_disk / "ballast"
    (said,) = run_ranks(1, _train_on_a_disk_that_fills_up, config, ballast)
    assert re.search(r"step-000000006/.* cannot be written: No space left on device\. Free some space", said)
    committed = sorted(path.parent.name for path in small_disk.glob("run/checkpoints/*/manifest.json"))
    assert committed[-1] == "step-000000004"
    assert not list(small_disk.glob("run/**/.*.tmp"))
    ballast.unlink()
    run_ranks(1, train_without_ray, config)
    assert _sums(workspace, ("model",)) == _sums(undisturbed, ("model",))


def _train_and_use(config: Config, failure_rate: float) -> int:
    """Run all stages from training on; returns how often the storage failed."""
    with without_ray() as patch:
        patch.setattr(retries, "FIRST_PAUSE_SECONDS", 1e-3)
        flaky_storage.fail_at_random(failure_rate, seed=1)
        workspace = Workspace(config.workspace)
        for job in (train, evaluate, recommend, export):
            job.run(config, workspace, ignore)
        failures = FlakyFileSystem.failures
        flaky_storage.fail_at(set())
    return failures


@pytest.mark.distributed
def test_storage_that_fails_now_and_then_changes_no_result(tmp_path: Path) -> None:
    sums = []
    for scheme in ("", "flaky://"):
        folder = tmp_path / (scheme[:5] or "local")
        tiny_workspace(folder)
        (failures,) = run_ranks(1, _train_and_use, _config(f"{scheme}{folder}"), 0.05)
        assert (failures > 20) == bool(scheme)
        sums.append(_sums(Workspace(str(folder)), ("model", "evaluation", "recommendations", "export")))
    assert sums[0] == sums[1]


def _embedded(folder: Path, encoder: HashEncoder, texts: list[str]) -> tuple[Config, Workspace]:
    sources = {"catalog": {"path": "items.parquet"}, "interactions": {"path": "log.parquet"}}
    sizes = {"model": {"hidden_dim": DIM // 2}, "decompose": {"null_dim": 2}}
    config = parse_config({"workspace": str(folder), "data": sources, **sizes})
    workspace = Workspace(config.workspace)
    write_catalog(workspace, texts, shard_rows=20)
    _embed_and_decompose(config, workspace, encoder)
    return config, workspace


def _embed_and_decompose(config: Config, workspace: Workspace, encoder: HashEncoder) -> None:
    embed(encoder, CONFIG.model_copy(update={"max_quarantined": 0.1}), workspace, ignore)
    decompose.run(config, workspace, ignore)


@pytest.mark.engine
@pytest.mark.usefixtures("ray_cluster")
def test_a_shard_that_lost_a_bit_is_made_again_alone(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(70)]
    texts[25], texts[65] = "refused", texts[3]  # a text of another shard, too
    encoder = HashEncoder(tmp_path)
    config, workspace = _embedded(tmp_path / "run", encoder, texts)
    names = ("embeddings", "nullspace", "features")
    before, embedded = _sums(workspace, names), encoder.embedded()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("*/*.parquet")}
    damaged = [
        tmp_path / "run" / name
        for name in (
            "embeddings/part-00003.parquet",
            "embeddings/quarantine-00001.parquet",
            "features/part-00000.parquet",
        )
    ]
    for path in damaged:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(
        WorkspaceError, match=r"cannot be used: its checksum differs .* `alphafuse verify CONFIG --repair`"
    ):
        workspace.artifact("embeddings").verify()
    found = [examine(workspace.artifact(name)) for name in names]
    assert [[finding.file for finding in each.findings] for each in found] == [
        ["embeddings/quarantine-00001.parquet", "embeddings/part-00003.parquet"],
        [],
        ["features/part-00000.parquet"],
    ]
    for each in found:
        each.repair()
    _embed_and_decompose(config, workspace, encoder)
    assert _sums(workspace, names) == before
    again = encoder.embedded()[len(embedded) :]
    assert set(again) == {text for text in [*texts[20:40], *texts[60:]] if "refused" not in text}
    rewritten = {path for path, when in written.items() if path.stat().st_mtime_ns != when}
    assert rewritten == {*damaged, tmp_path / "run" / "embeddings" / "part-00001.parquet"}
