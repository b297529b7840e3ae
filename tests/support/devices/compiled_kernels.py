"""Compiles the Triton kernels for a GPU that is not there, instead of running them.

The interpreter takes Python that the compiler refuses; and a kernel that needs too much memory shows here.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from typing import Any

from alphafuse.kernels.device import KERNEL_DEVICES

HOPPER = 90
SHARED_BYTES: dict[str, int] = {}
"""Shared memory of each kernel that was compiled, by name."""
LAUNCHED: Counter[str] = Counter()
"""Number of times that each kernel would have been launched, by name."""


def compile_kernels() -> None:
    """Compile every kernel that is launched in this process for a Hopper GPU, and launch none."""
    os.environ["TRITON_CACHE_DIR"] = tempfile.mkdtemp()
    KERNEL_DEVICES.add("cpu")
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class NoGpu:
        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

        def get_current_target(self) -> Any:
            return GPUTarget("cuda", HOPPER, 32)

    driver.set_active(NoGpu())
    run = JITFunction.run

    def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        compiled = run(kernel, *args, grid=grid, warmup=True, **options)
        LAUNCHED[kernel.__name__] += 1
        SHARED_BYTES[kernel.__name__] = max(SHARED_BYTES.get(kernel.__name__, 0), compiled.metadata.shared)
        return compiled

    JITFunction.run = compile_only
