"""Counts the kernels that operations would launch on a GPU, and finds those that make the host wait for the device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

READS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal"}
"""Operations that give the host a number, or a size that depends on values."""
NO_KERNEL = {
    *("view", "_unsafe_view", "_reshape_alias", "as_strided", "alias", "detach", "t", "transpose", "permute", "expand"),
    *("slice", "select", "split", "split_with_sizes", "unbind", "unsqueeze", "squeeze", "lift_fresh"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
    *("_record_function_enter_new", "_record_function_exit", "_is_mkldnn_fp16_supported"),
}
"""Operations that make a view, reserve memory, or do not concern the device."""
ATTENTION_KERNELS = 3
"""Kernels of fused attention beside the one that is counted: its backward pass has up to three."""


class Launches(TorchDispatchMode):
    """Counts operations while it is entered.

    Attributes:
        launched: number of operations by name that would launch a kernel.
        reads: names of operations that would wait for the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launched: Counter[str] = Counter()
        self.reads: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in READS or (name.startswith("index") and _has_mask(args)):
            self.reads.append(name)
        elif name not in NO_KERNEL:
            self.launched[name] += 1
        return function(*args, **(kwargs or {}))


def _has_mask(args: Any) -> bool:
    """Tell whether an operation takes rows out by a mask, whose number it must find out."""
    indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    return any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)


class AsOnAGpu(TorchFunctionMode):
    """Makes dropout and attention single operations, as they are on a GPU; on a CPU torch composes them of many."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.nn.functional.dropout and kwargs.get("training", args[2] if len(args) > 2 else True):
            return torch.native_dropout(args[0], kwargs.get("p", args[1] if len(args) > 1 else 0.5), True)[0]
        if function is torch.nn.functional.scaled_dot_product_attention:
            return _Attention.apply(*args)
        return function(*args, **kwargs)


class _Attention(torch.autograd.Function):
    """As many operations as attention has kernels; the values do not matter."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return query.sin()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(gradient.sin() for _ in range(ATTENTION_KERNELS))
