"""Says on which devices the kernels of this folder run; elsewhere plain torch computes the same.

A file whose name ends in `_triton` imports Triton and is imported where a kernel runs alone: processes without a GPU
neither need Triton nor wait for its import. Kernels are not specialised for sizes that differ from step to step, so
that none is compiled in the middle of a training.
"""

from __future__ import annotations

import torch

KERNEL_DEVICES = {"cuda"}
"""Types of devices that Triton compiles for. Tests that run kernels in Triton's interpreter add `cpu`."""


def runs_kernels(device: torch.device) -> bool:
    """Tell whether tensors of `device` are computed by kernels."""
    return device.type in KERNEL_DEVICES
