"""Prepares a process for its device, and its products for full precision. Knows nothing of ranks or models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def prepare_device(device: torch.device) -> None:
    """Make `device` this process's own, and its results equal to the last bit whenever the work is repeated.

    On CUDA, sums over threads in any order are the default of some operations (gradients of attention and of gathered
    rows among them); an operation that knows no other way raises an error. Must come before the first product on the
    device. Other devices need no preparation.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.cuda.set_device(device)
    torch.use_deterministic_algorithms(True)
    # Nothing reads memory before it writes it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def full_precision() -> Iterator[None]:
    """Context in which products of float32 are not rounded to TF32 or bfloat16 first, whatever the process chose: close
    scores would become equal, and their order that of the item indices; spectra would keep three digits."""
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(chosen)
