"""The DeepSpeed engine of the dense weights: gradient averaging over ranks, accumulation, clipping, Adam.

Also takes the dense state out and puts it back, whole and per parameter, so that it fits any number of ranks and
any ZeRO stage. Knows nothing of items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from alphafuse.config import TrainConfig
from alphafuse.training.lean_import import without

with without("mlflow"):  # its import, for DeepSpeed's autotuner, would take longer than all the rest
    import deepspeed
    from deepspeed.utils import (
        safe_get_full_fp32_param,
        safe_get_full_optimizer_state,
        safe_set_full_fp32_param,
        safe_set_full_optimizer_state,
    )

MOMENTS = ("exp_avg", "exp_avg_sq")


class DenseEngine:
    """Trains the parameters of `module`; needs an initialised process group (of one rank at least).

    A step of DeepSpeed waits for the device wherever it clips, looks for infinities or measures throughput. Here the
    optimizer itself scales the gradient down and, under bfloat16, leaves a step out whose gradient is not finite: the
    fused kernel reads both from the device.

    Args:
        module: model, on the device that it trains on. Forward passes go through `self.module`.
    """

    def __init__(self, module: nn.Module, config: TrainConfig, world_size: int) -> None:
        self._zero_stage = config.deepspeed.zero_stage
        self._bf16 = config.deepspeed.bf16
        self._max_grad_norm = config.max_grad_norm
        self._measured = False
        self._norm: torch.Tensor | None = None
        settings: dict[str, Any] = {
            "train_batch_size": world_size * config.accumulation,  # counts parts; losses weigh the samples
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": config.accumulation,
            "zero_optimization": {"stage": self._zero_stage, "overlap_comm": False},
            "bf16": {"enabled": self._bf16, "check_grad_overflow": False},
            # Sums over micro-batches and ranks; those of bfloat16 would lose what is below 1/256 of them.
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",
            "gradient_clipping": 0.0,  # by the optimizer
            "timers": {"throughput": {"enabled": False}},
        }
        bf16_optimizer = self._bf16 and self._zero_stage == 1
        if self._zero_stage and not bf16_optimizer:
            settings["zero_optimization"]["compute_grad_norm"] = False
        self._names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        optimizer.register_step_pre_hook(self._prepare_step)
        # On CPUs DeepSpeed would compile a shared-memory all-reduce on first use. gloo serves as well, and a job that
        # is killed while it compiles leaves a lock for which every later one waits without end.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=settings, dist_init_required=False
        )
        if bf16_optimizer:
            self._optimizer.step = self._step_of_bf16
        if world_size == 1 and not self._zero_stage:
            self._engine.enable_backward_allreduce = False  # it would copy every gradient
        self._adam = optimizer
        self.module: nn.Module = self._engine

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate the gradients of one micro-batch; at the last one of a step they are averaged over ranks."""
        self._engine.backward(loss)

    def step(self, learning_rate: float, measured: bool = True) -> torch.Tensor | None:
        """Count one micro-batch; at the last one of a step, clip and update.

        Args:
            measured: compute the norm, which costs some time, at the last micro-batch of a step.

        Returns:
            Where it is measured, the norm of the dense gradient before clipping, over all ranks: a scalar on the
            device.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._measured = measured
        self._engine.step()
        return self._norm if measured else None

    def _prepare_step(self, adam: Any, args: Any, kwargs: Any) -> None:
        """Measure the gradient before Adam's step, and tell Adam what to divide it by, and whether it is finite."""
        if not (self._measured or self._bf16 or self._max_grad_norm is not None):
            return
        gradients = [
            tensor.grad for group in adam.param_groups for tensor in group["params"] if tensor.grad is not None
        ]
        self._norm = nn.utils.get_total_norm(gradients)
        if self._zero_stage and dist.get_world_size() > 1:  # of this rank's partition
            square = self._norm.square()
            dist.all_reduce(square)
            self._norm = square.sqrt()
        if self._max_grad_norm is not None:
            adam.grad_scale = ((self._norm + 1e-6) / self._max_grad_norm).clamp(min=1.0)
        if self._bf16:
            adam.found_inf = (~self._norm.isfinite()).float()

    def _step_of_bf16(self) -> None:
        """Step of DeepSpeed's `BF16_Optimizer`, which ZeRO 1 uses, without its reading of the norm."""
        optimizer = self._optimizer
        gradients = optimizer.fp32_groups_gradient_flat_partition
        for weights, gradient in zip(optimizer.fp32_groups_flat_partition, gradients, strict=True):
            weights.grad = gradient
        self._adam.step()
        optimizer._lazy_init_hp_params_optimizer_state()
        optimizer.update_lp_params()
        optimizer.clear_hp_grads()

    def full_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the name of every parameter and its weights in float32, on the device. A collective with ZeRO."""
        for name, parameter in self._parameters():
            yield name, self._get(parameter, None)

    def weights(self) -> dict[str, torch.Tensor]:
        """Weights of every parameter in float32, by name, on the CPU. A collective with ZeRO."""
        return _on_cpu(dict(self.full_weights()))

    def moments(self) -> dict[str, torch.Tensor]:
        """Adam's moments of every parameter in float32, and its step count. A collective with ZeRO.

        Keys: `NAME.exp_avg`, `NAME.exp_avg_sq` and `adam_steps`. Before Adam's first step they are zeros.
        """
        if not self._steps():
            self._prepare_optimizer_state(0.0)
        state = {"adam_steps": torch.tensor(self._steps())}
        for name, parameter in self._parameters():
            state |= {f"{name}.{moment}": self._get(parameter, moment) for moment in MOMENTS}
        return _on_cpu(state)

    def state(self) -> dict[str, torch.Tensor]:
        """`weights` and `moments` of every parameter. A collective with ZeRO."""
        return {**self.weights(), **self.moments()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `state` gave, on any number of ranks."""
        self._prepare_optimizer_state(float(state["adam_steps"]))
        self.load_weights(state)
        for name, parameter in self._parameters():
            for moment in MOMENTS:
                self._set(parameter, state[f"{name}.{moment}"], moment)

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put in the weights of every parameter, by name, and leave the moments as they are."""
        for name, parameter in self._parameters():
            self._set(parameter, weights[name], None)

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
                state["step"] = torch.tensor(steps, dtype=torch.float32, device=parameter.device)
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
