"""Multiplies blocks of embeddings by torch, on a GPU, in the precision that suits the card.

Imported where a device computes alone: other processes do not wait for torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alphafuse.distributed.devices import full_precision

FAST_FLOAT64 = frozenset({(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)})
"""Compute capabilities of NVIDIA's cards for data centres (P100, V100, A100, H100 and H200, B200), which compute half
as many products in float64 as in float32. All others compute 1/32 or 1/64 of them: those for desktops and for
inference, and B300 (10.3) too."""
FLOAT32_ROWS = 1024
"""Rows of one product in float32: sums of float32 grow no longer than this before they are added up in float64."""


@dataclass(frozen=True)
class TorchArithmetic:
    """torch on one device.

    Everything is float64 but, on most cards, the factors of `scatter`. Then blocks of `FLOAT32_ROWS` rows are rounded
    to float32 and multiplied, without TF32, and their products are added up in float64. Rows are centred before that,
    so that a mean far from zero costs no digits.

    Attributes:
        precision: float64 or float32, of the factors of `scatter`.
    """

    device: torch.device
    precision: torch.dtype

    @classmethod
    def on(cls, device: torch.device) -> TorchArithmetic:
        """The arithmetic that suits a device."""
        properties = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
        return cls(device, product_precision(properties))

    def put(self, array: np.ndarray) -> torch.Tensor:
        copy = torch.tensor(array)
        if self.device.type == "cuda":
            copy = copy.pin_memory()
        # Travels as it is stored, and becomes float64 on the device.
        return copy.to(self.device, non_blocking=True).to(torch.float64)

    def fetch(self, array: torch.Tensor | np.ndarray) -> np.ndarray:
        found: np.ndarray = torch.as_tensor(array).cpu().numpy()
        return found

    @full_precision()
    def scatter(self, rows: torch.Tensor, probe: torch.Tensor | None) -> torch.Tensor:
        at_once = FLOAT32_ROWS if self.precision == torch.float32 else len(rows)
        columns = rows.shape[1] if probe is None else probe.shape[1]
        total = torch.zeros(rows.shape[1], columns, dtype=torch.float64, device=self.device)
        factor = None if probe is None else probe.to(self.precision)
        for some in rows.split(at_once):
            part = some.to(self.precision)  # [at most at_once, dim]
            total += part.T @ (part if factor is None else part @ factor)
        return total

    def squares(self, rows: torch.Tensor) -> float:
        numbers = rows.flatten()
        return float(numbers @ numbers)


def product_precision(properties: Any) -> torch.dtype:
    """Precision of the products on a device: float64 where it is about as fast as float32, else float32.

    Args:
        properties: `major` and `minor` of the compute capability, as `torch.cuda.get_device_properties` has them; None
            for a CPU.
    """
    fast = properties is None or (properties.major, properties.minor) in FAST_FLOAT64
    return torch.float64 if fast else torch.float32
