"""Runs the Triton kernels in Triton's interpreter, for tensors of the CPU.

Triton reads the variable when it is imported, so that kernels are interpreted in processes that begin with it:
`run_ranks(…, prepare=interpret_kernels)` starts some that other tests do not use.
"""

from __future__ import annotations

import os

from alphafuse.kernels.device import KERNEL_DEVICES


def interpret_kernels() -> None:
    """Let kernels run on the CPU in this process, by the interpreter."""
    os.environ["TRITON_INTERPRET"] = "1"
    KERNEL_DEVICES.add("cpu")
