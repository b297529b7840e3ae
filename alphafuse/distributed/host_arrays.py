"""Moves what the host has planned to the device, in one copy that nothing waits for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

Plan = TypeVar("Plan")
ALIGNMENT = 16
"""Tensors begin at multiples of so many bytes of the common buffer."""


def to_device(plan: Plan, device: torch.device) -> Plan:
    """Return `plan` with all tensors in it on the device; they are views of one buffer that is copied as a whole.

    Args:
        plan: a dataclass, a list or a tuple whose members may be such themselves, or tensors of the CPU.
    """
    if device.type == "cpu":
        return plan
    tensors = list(_tensors(plan))
    starts, size = [], 0
    for tensor in tensors:
        starts.append(size)
        size += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    packed = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    in_buffer = packed.numpy()
    for start, tensor in zip(starts, tensors, strict=True):
        in_buffer[start : start + tensor.nbytes] = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
    moved = packed.to(device, non_blocking=True)
    views = (
        moved[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for start, tensor in zip(starts, tensors, strict=True)
    )
    return _with_tensors(plan, views)


def _tensors(plan: Any) -> Iterator[torch.Tensor]:
    if isinstance(plan, torch.Tensor):
        yield plan
    else:
        for member in _members(plan):
            yield from _tensors(member)


def _with_tensors(plan: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """The plan with its tensors replaced by others, in the order in which `_tensors` yields them."""
    if isinstance(plan, torch.Tensor):
        return next(tensors)
    replaced = [_with_tensors(member, tensors) for member in _members(plan)]
    if isinstance(plan, list | tuple):
        return type(plan)(replaced)
    if is_dataclass(plan) and not isinstance(plan, type):
        return replace(plan, **dict(zip((field.name for field in fields(plan)), replaced, strict=True)))
    return plan


def _members(plan: Any) -> list[Any]:
    if isinstance(plan, list | tuple):
        return list(plan)
    if is_dataclass(plan) and not isinstance(plan, type):
        return [getattr(plan, field.name) for field in fields(plan)]
    return []
