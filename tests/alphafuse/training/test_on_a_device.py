"""Training, validation and evaluation on a device beside the CPU, which two ranks pretend to have: what lies where, and
which process group moves it, is checked at every operation; results equal those of the CPU."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from support.devices.interpreted_kernels import interpret_kernels
from support.devices.pretended_device import pretended_device, register
from support.processes.multi_process import run_ranks
from support.processes.plain_engine import PlainEngine
from support.workspaces.tiny_workspace import HIDDEN_DIM, tiny_config, tiny_workspace
from torch.utils import _pytree

from alphafuse.config import Config, parse_config
from alphafuse.data.popularity import load_held_out, load_popularity
from alphafuse.data.sequence_store import SequenceStore
from alphafuse.distributed.communicator import Communicator
from alphafuse.distributed.devices import prepare_device
from alphafuse.evaluation.evaluator import evaluate
from alphafuse.events import ignore
from alphafuse.kernels.device import KERNEL_DEVICES
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from alphafuse.training.loop import Trainer

LOSSES: dict[str, dict[str, Any]] = {
    **{f"infonce, {kind}": {"name": "infonce", "negatives": kind} for kind in ("shared", "uniform", "shard_local")},
    **{f"sampled, {kind}": {"negatives": kind} for kind in ("shared", "uniform", "shard_local", "in_batch")},
    "infonce, in_batch": {"name": "infonce", "negatives": "in_batch"},
    "bce": {"name": "bce", "similarity": "dot"},
    "gbce": {"name": "gbce", "negatives": "uniform", "similarity": "dot"},
    "softmax": {"name": "softmax"},
}
DREAMREC = {"name": "dreamrec", "timesteps": 40, "beta_range": [0.01, 0.4], "sampling_stride": 20}
ENCODERS: dict[str, dict[str, Any]] = {
    "alphafuse": {},
    "alphafuse, replace": {"encoder": {"fusion": "replace"}},
    "alphafuse, euclidean": {"encoder": {"id_space": "euclidean"}},
    **{name: {"encoder": {"name": name}} for name in ("id", "morec", "idreamrec", "unisrec", "llminit")},
    "whitenrec": {"encoder": {"name": "whitenrec"}, "hidden_dim": 6},
    **{name: {"encoder": {"name": name}} for name in ("rlmrec_con", "rlmrec_gen", "llm_esr")},
}
# But for GRU4Rec, whose cell torch computes by other kernels on every device.
CASES = [
    *(("alphafuse", loss, {"name": "sasrec"}) for loss in LOSSES),
    *(("llm_esr", loss, {"name": "sasrec"}) for loss in ("softmax", "sampled, in_batch", "infonce, uniform")),
    *((encoder, "sampled, in_batch", {"name": "hstu"}) for encoder in ENCODERS),
    ("alphafuse", "diffusion", DREAMREC),
    ("rlmrec_con", "diffusion", DREAMREC),
]
KERNELS = ("row_update", "negative_sums", "counting")
WITH_KERNELS = [
    *(("alphafuse", f"sampled, {kind}", {"name": "sasrec"}) for kind in ("shared", "shard_local", "in_batch")),
    *(("alphafuse", loss, {"name": "sasrec"}) for loss in ("softmax", "bce", "gbce")),
    ("rlmrec_con", "infonce, shared", {"name": "sasrec"}),
]


def _config(
    folder: Path, encoder: str, loss: str, backbone: dict[str, Any], max_grad_norm: float | None = 1.0
) -> Config:
    section = LOSSES.get(loss, {"name": "diffusion", "similarity": "dot"}) | {"num_negatives": 6}
    settings: dict[str, Any] = {"batch_size": 40, "max_epochs": 1, "validation_targets": 8, "accumulation": 2}
    settings["max_grad_norm"] = max_grad_norm
    tree = tiny_config(folder, backbone, loss=section, **settings).model_dump(mode="json")
    tree["decompose"]["directions"] = HIDDEN_DIM
    tree["model"] |= ENCODERS[encoder]
    return parse_config(tree)


def _run(configs: list[Config], on_device: bool) -> list[tuple[Any, ...]]:
    """For each configuration: losses and validations, rows after training and after a resume, dense state, the best
    validation after the resume, and metrics of the test."""
    results = []
    with pretended_device() if on_device else contextlib.nullcontext(torch.device("cpu")) as device:
        communicator = Communicator(device)
        for config in configs:
            workspace = Workspace(config.workspace)
            with patch("alphafuse.training.loop.DenseEngine", PlainEngine):
                arguments = (config, workspace, {"device": str(device), "case": config.model_dump_json()})
                trainer = Trainer(*arguments, communicator, device, ignore)
                history = [(entry["loss"], entry["validation"]) for entry in trainer.run()["history"]]
                again = Trainer(*arguments, communicator, device, ignore)
                again._resume()
            model = load_trained(config, workspace, communicator, device)
            known = (SequenceStore(workspace), load_popularity(workspace), None, load_held_out(workspace))
            quiet: Any = lambda *_: None  # noqa: E731
            metrics = evaluate(model, *known, config.evaluate, communicator, config.similarity, quiet, quiet)
            rows = [trained.table.trainable.cpu().clone() for trained in (trainer, again)]
            results.append((history, rows, trainer.engine.state(), again.state.best, metrics))
            communicator.barrier()
            assert communicator.gather_objects(communicator.rank) == [0, 1]
    if "cpu" in KERNEL_DEVICES:
        assert {f"alphafuse.kernels.{name}_triton" for name in KERNELS} <= set(sys.modules)
    return results


@pytest.mark.distributed
def test_two_ranks_with_a_device_train_and_evaluate_as_on_the_cpu(tmp_path: Path) -> None:
    results = []
    for on_device in (False, True):
        folders = [tmp_path / f"{on_device} {number}" for number in range(len(CASES))]
        for folder in folders:
            tiny_workspace(folder)
        configs = [_config(folder, *case) for folder, case in zip(folders, CASES, strict=True)]
        results.append(run_ranks(2, _run, configs, on_device, prepare=register))
    for on_cpu, with_device in zip(*results, strict=True):
        for case, expected, found in zip(CASES, on_cpu, with_device, strict=True):
            _assert_close(found, expected, str(case))


@pytest.mark.distributed
@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_two_ranks_with_kernels_train_and_evaluate_as_without(tmp_path: Path, max_grad_norm: float | None) -> None:
    chosen = WITH_KERNELS if max_grad_norm is None else WITH_KERNELS[:1]
    results = []
    for prepare in (register, interpret_kernels):
        folders = [tmp_path / f"{prepare.__name__} {number}" for number in range(len(chosen))]
        for folder in folders:
            tiny_workspace(folder)
        configs = [_config(folder, *case, max_grad_norm) for folder, case in zip(folders, chosen, strict=True)]
        results.append(run_ranks(2, _run, configs, False, prepare=prepare))
    for plain, with_kernels in zip(*results, strict=True):
        for case, expected, found in zip(chosen, plain, with_kernels, strict=True):
            _assert_close(found, expected, str(case))


def _assert_close(found: Any, expected: Any, case: str) -> None:
    """Compare nested results; the order of some sums depends on the device."""
    leaves, structure = _pytree.tree_flatten(found)
    wanted, wanted_structure = _pytree.tree_flatten(expected)
    assert structure == wanted_structure, case
    for one, other in zip(leaves, wanted, strict=True):
        if isinstance(other, torch.Tensor | float):
            np.testing.assert_allclose(one, other, rtol=5e-5, atol=1e-5, err_msg=case)
        else:
            assert one == other, case


def _train_on_gpu(config: Config, device: torch.device) -> tuple[Any, ...]:
    arguments = (config, Workspace(config.workspace), {"on": str(device)}, Communicator(device), device, ignore)
    trainer = Trainer(*arguments)
    history = [(entry["loss"], entry["validation"]) for entry in trainer.run()["history"]]
    return history, trainer.table.trainable.cpu(), trainer.engine.state()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", [*CASES, ("alphafuse", "sampled, in_batch", {"name": "gru4rec", "num_layers": 2})])
def test_a_gpu_repeats_a_training_to_the_last_bit(tmp_path: Path, case: tuple[str, str, dict[str, Any]]) -> None:
    prepare_device(torch.device("cuda", 0))
    results = []
    try:
        for attempt in "12":
            tiny_workspace(tmp_path / attempt)
            with patch("alphafuse.training.loop.DenseEngine", PlainEngine):
                config = _config(tmp_path / attempt, *case)
                results.append(_train_on_gpu(config, torch.device("cuda", 0)))
    finally:
        torch.use_deterministic_algorithms(False)
    (first, structure), (second, same) = (_pytree.tree_flatten(result) for result in results)
    assert structure == same
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
