"""The DeepSpeed engine of the dense weights: gradient averaging over ranks, accumulation, clipping, Adam.

Also takes the dense state out and puts it back, whole and per parameter, so that it fits any number of ranks and
any ZeRO stage. Knows nothing of items.
"""

from __future__ import annotations

from typing import Any

import deepspeed
import torch
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)
from torch import nn

from alphafuse.config import TrainConfig

MOMENTS = ("exp_avg", "exp_avg_sq")


class DenseEngine:
    """Trains the parameters of `module`; needs an initialised process group (of one rank at least).

    Args:
        module: model, on the device that it trains on. Forward passes go through `self.module`.
    """

    def __init__(self, module: nn.Module, config: TrainConfig, world_size: int) -> None:
        self._zero_stage = config.deepspeed.zero_stage
        self._plain = not config.deepspeed.zero_stage and not config.deepspeed.bf16
        settings: dict[str, Any] = {
            "train_batch_size": world_size * config.accumulation,  # counts parts; losses weigh the samples
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": config.accumulation,
            "zero_optimization": {"stage": self._zero_stage, "overlap_comm": False},
            "bf16": {"enabled": config.deepspeed.bf16},
            # Sums over micro-batches and ranks; those of bfloat16 would lose what is below 1/256 of them.
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",
            "gradient_clipping": config.max_grad_norm or 0.0,
        }
        self._names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        fused = any(parameter.is_cuda for parameter in trained) or None  # None: as torch chooses
        optimizer = torch.optim.Adam(trained, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)
        # On CPUs DeepSpeed would compile a shared-memory all-reduce on first use. gloo serves as well, and a job that
        # is killed while it compiles leaves a lock for which every later one waits without end.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=settings, dist_init_required=False
        )
        self._adam = optimizer
        self.module: nn.Module = self._engine

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate the gradients of one micro-batch; at the last one of a step they are averaged over ranks."""
        self._engine.backward(loss)

    def step(self, learning_rate: float, measured: bool = True) -> torch.Tensor | None:
        """Count one micro-batch; at the last one of a step, clip and update.

        Args:
            measured: compute the norm, which costs some time.

        Returns:
            At the last micro-batch of a step, where it is measured, the norm of the dense gradient before clipping,
            over all ranks: a scalar on the device.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        # DeepSpeed keeps no gradient norm of plain float32 weights.
        norm = self._gradient_norm() if self._plain and measured else None
        self._engine.step()
        if not self._plain:
            norm = self._engine.get_global_grad_norm()
        return None if norm is None else torch.as_tensor(norm)

    def weights(self) -> dict[str, torch.Tensor]:
        """Weights of every parameter in float32, by name. A collective with ZeRO."""
        return _on_cpu({name: self._get(parameter, None) for name, parameter in self._parameters()})

    def state(self) -> dict[str, torch.Tensor]:
        """Weights and Adam moments of every parameter in float32, and the step count. A collective with ZeRO.

        Keys: `NAME`, `NAME.exp_avg`, `NAME.exp_avg_sq` and `adam_steps`.
        """
        state = {}
        for name, parameter in self._parameters():
            state[name] = self._get(parameter, None)
            for moment in MOMENTS:
                state[f"{name}.{moment}"] = self._get(parameter, moment)
        state["adam_steps"] = torch.tensor(self._steps())
        return _on_cpu(state)

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `state` gave, on any number of ranks."""
        self._prepare_optimizer_state(float(state["adam_steps"]))
        for name, parameter in self._parameters():
            self._set(parameter, state[name], None)
            for moment in MOMENTS:
                self._set(parameter, state[f"{name}.{moment}"], moment)

    def _gradient_norm(self) -> torch.Tensor:
        gradients = [parameter.grad for _, parameter in self._parameters() if parameter.grad is not None]
        return nn.utils.get_total_norm(gradients)

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        parameters = dict(self._engine.module.named_parameters())
        return [(name, parameters[name]) for name in self._names]

    def _updated(self) -> list[torch.Tensor]:
        """Tensors that Adam updates: the parameters, or with ZeRO this rank's flat partitions of them."""
        return [parameter for group in self._adam.param_groups for parameter in group["params"]]

    def _steps(self) -> float:
        states = [self._adam.state[parameter] for parameter in self._updated() if parameter in self._adam.state]
        return max((float(state["step"]) for state in states if "step" in state), default=0.0)

    def _prepare_optimizer_state(self, steps: float) -> None:
        """Create Adam's state, which Adam itself would create only in its first step."""
        for group in self._adam.param_groups:
            for parameter in group["params"]:
                state = self._adam.state[parameter]
                # The fused kernel reads the count where the weights are.
                device = parameter.device if group["fused"] else torch.device("cpu")
                state["step"] = torch.tensor(steps, dtype=torch.float32, device=device)
                for moment in MOMENTS:
                    state.setdefault(moment, torch.zeros_like(parameter))
        if self._zero_stage:
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def _get(self, parameter: nn.Parameter, moment: str | None) -> torch.Tensor:
        if self._zero_stage:
            if moment is None:
                return safe_get_full_fp32_param(parameter)
            return safe_get_full_optimizer_state(parameter, moment)
        return parameter if moment is None else self._adam.state[parameter][moment]

    def _set(self, parameter: nn.Parameter, value: torch.Tensor, moment: str | None) -> None:
        if self._zero_stage:
            value = value.to(parameter.device)
            if moment is None:
                safe_set_full_fp32_param(parameter, value)
                parameter.data.copy_(value)
            else:
                safe_set_full_optimizer_state(parameter, value, moment)
        else:
            target = parameter.data if moment is None else self._adam.state[parameter][moment]
            target.copy_(value)


def _on_cpu(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone().contiguous().cpu() for name, value in state.items()}
