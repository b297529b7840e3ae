"""Runs the Triton kernels in Triton's interpreter, for tensors of the CPU.

Triton reads the variable when it is imported, so that kernels are interpreted in processes that begin with it:
`run_ranks(…, prepare=interpret_kernels)` starts some that other tests do not use.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from alphafuse.kernels.device import KERNEL_DEVICES


def interpret_kernels() -> None:
    """Let kernels run on the CPU in this process, by the interpreter."""
    os.environ["TRITON_INTERPRET"] = "1"
    KERNEL_DEVICES.add("cpu")
    _sum_products_alike()


def _sum_products_alike() -> None:
    """Let equal columns of a product be equal, as on a GPU: on some processors numpy sums the columns at the edge of a
    product in another order. Sums in float64 are the same but for their last bits, which the result does not have."""
    from triton.runtime import interpreter

    def create_dot(self: Any, a: Any, b: Any, d: Any, *_: Any) -> Any:
        product = np.matmul(a.data.astype(np.float64), b.data.astype(np.float64))
        return interpreter.TensorHandle((product + d.data).astype(d.data.dtype), d.dtype.scalar)

    interpreter.InterpreterBuilder.create_dot = create_dot
