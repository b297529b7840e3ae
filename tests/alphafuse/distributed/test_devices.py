"""Preparation of a process for its device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch

from alphafuse.distributed.devices import prepare_device


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    with patch.dict(os.environ):
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
        filled = torch.utils.deterministic.fill_uninitialized_memory
        yield
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def test_a_gpu_repeats_its_results() -> None:
    with patch("torch.cuda.set_device") as chosen:
        prepare_device(torch.device("cuda", 3))
    chosen.assert_called_once_with(torch.device("cuda", 3))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_nothing_changes_on_a_cpu() -> None:
    prepare_device(torch.device("cpu"))
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
