"""Pretends to be an accelerator on a machine without one.

Tensors of the pretended device are computed on the CPU, and refuse what tensors of a GPU refuse: to meet tensors of the
CPU in an operation, to become numpy arrays, and to travel through a process group of the CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretended"
ATEN = torch.ops.aten
MEETS_CPU = (ATEN.copy_.default, ATEN._to_copy.default, ATEN.index.Tensor, ATEN.index_put_.default)
"""Operations that take tensors of both devices on a GPU too: copies, and indices from the CPU."""


class _Module(_DummyBackendModule):
    """Random numbers of the pretended device are drawn by the CPU's generator."""

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class OnDevice(torch.Tensor):
    """A tensor of the pretended device; `inner` is the one of the CPU that holds its values."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnDevice:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        device = torch.device(NAME, 0)
        return torch.Tensor._make_wrapper_subclass(cls, inner.size(), dtype=inner.dtype, device=device, **layout)

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(function, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.inner!r})"

    def tolist(self) -> Any:
        return self.inner.tolist()


class _Mode(TorchDispatchMode):
    """Makes tensors on the device where code asks for it by `device=`."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(function, args, kwargs or {})


def _compute(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Carry out an operation on the CPU; its results lie on the device where its arguments or `device=` say so."""
    tensors = [leaf for leaf in _pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
    wanted = kwargs.get("device")
    if there and function not in MEETS_CPU and any(t.dim() for t in tensors if not isinstance(t, OnDevice)):
        raise RuntimeError(f"{function} got tensors of the device and of the CPU")
    own_args, own_kwargs = _pytree.tree_map_only(OnDevice, lambda tensor: tensor.inner, (args, kwargs))
    if wanted is not None:
        own_kwargs["device"] = torch.device("cpu")
    result = function(*own_args, **own_kwargs)
    lies_there = bool(there) if wanted is None else torch.device(wanted).type == NAME
    if not lies_there or (function is ATEN.copy_.default and not isinstance(args[0], OnDevice)):
        return result
    result = _pytree.tree_map_only(torch.Tensor, OnDevice, result)
    return return_and_correct_aliasing(function, args, kwargs, result) if there else result


def register() -> None:
    """Make the device known to torch; once in a process, before its first backward pass, which counts the devices."""
    _setup_privateuseone_for_python_backend(NAME, _Module())


@contextlib.contextmanager
def pretended_device() -> Iterator[torch.device]:
    """Context in which there is a pretended device, whose tensors the default process group moves, as NCCL does: it
    refuses those of the CPU, and every other group those of the device. Needs `register`."""
    with contextlib.ExitStack() as stack:
        for name in ("all_reduce", "all_gather", "all_to_all_single"):
            stack.enter_context(patch.object(dist, name, _as_nccl(getattr(dist, name))))
        stack.enter_context(patch.object(dist, "barrier", _of_the_cpu(dist.barrier)))
        stack.enter_context(patch.object(dist, "all_gather_object", _of_the_cpu(dist.all_gather_object)))
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=…) then begins on the CPU
        stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        stack.enter_context(_Mode())
        with_device = partial(ThreadPoolExecutor, initializer=lambda: _Mode().__enter__())  # a mode is a thread's own
        stack.enter_context(patch("alphafuse.storage.filesystem.read_ahead.ThreadPoolExecutor", with_device))
        yield torch.device(NAME, 0)


def _as_nccl(collective: Callable[..., Any]) -> Callable[..., Any]:
    """The collective, with tensors of the device in the default group and of the CPU in others."""

    @wraps(collective)
    def checked(*args: Any, group: Any = None, **kwargs: Any) -> Any:
        for tensor in _pytree.tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor) and isinstance(tensor, OnDevice) != (group is None):
                raise RuntimeError(f"{collective.__name__} got a tensor on {tensor.device} in the wrong group")
        args, kwargs = _pytree.tree_map_only(OnDevice, lambda tensor: tensor.inner, (args, kwargs))
        return collective(*args, group=group, **kwargs)

    return checked


def _of_the_cpu(collective: Callable[..., Any]) -> Callable[..., Any]:
    """The collective, which takes the group of the CPU alone: NCCL would guess a device."""

    @wraps(collective)
    def checked(*args: Any, group: Any = None, **kwargs: Any) -> Any:
        if group is None:
            raise RuntimeError(f"{collective.__name__} went to the device")
        return collective(*args, group=group, **kwargs)

    return checked
