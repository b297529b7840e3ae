"""The section `train`: loss, schedule, engine and loop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alphafuse.config.base import OPERATIONAL, Added, Count, NonNegative, OpenFraction, Positive, Section
from alphafuse.config.sections.resources import RankResources


class LossConfig(Section):
    """The loss that training minimises."""

    name: Literal["infonce", "sampled_softmax", "softmax", "bce", "gbce", "diffusion"] = "sampled_softmax"
    """`infonce`: cross entropy of the target among itself and sampled negatives; `softmax`: over the full, sharded
    catalog; `sampled_softmax`: an estimate of `softmax`, in which each negative weighs as many items as it stands for;
    `bce`: binary cross entropy against sampled negatives; `gbce`: `bce` calibrated for the share that is sampled;
    `diffusion`: squared error of the denoised target, for the backbone `dreamrec`."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """Similarity of the history's hidden state and an item vector, in the loss and (by default) in ranking."""
    temperature: Positive = 0.07
    """Temperature that divides the similarity."""
    negatives: Literal["shared", "shard_local", "uniform", "in_batch"] = "shared"
    """`uniform`: `num_negatives` items are drawn for each target; `shared`: drawn once for the whole batch;
    `shard_local`: as `shared`, but each rank scores those that it owns, so that hidden states travel and no item does;
    `in_batch`: drawn among the batch's targets, in proportion to popularity, with a correction for it."""
    num_negatives: Count = 1024
    """Negatives for each target, or for the batch where they are shared."""
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Calibration t of `gbce`: 0 is `bce` with a sum over the negatives, 1 has the full softmax's probabilities."""
    memory_mib: Count = 64
    """Most MiB that a rank's scores of its own items take (`softmax`, `shard_local`); on GPUs, whose scores are never
    kept, the vectors of its items."""

    @model_validator(mode="after")
    def _check(self) -> LossConfig:
        if self.name in ("bce", "gbce") and self.negatives in ("shard_local", "in_batch"):
            raise ValueError(
                f"`{self.name}` takes negatives `shared` or `uniform`; `{self.negatives}` is for `infonce` and "
                "`sampled_softmax`"
            )
        if self.name == "diffusion" and self.similarity != "dot":
            raise ValueError("`diffusion` generates item vectors, which are ranked by the similarity `dot`: set it")
        return self

    @property
    def samples_negatives(self) -> bool:
        """Tell whether targets are compared with drawn items."""
        return self.name not in ("softmax", "diffusion")


class ScheduleConfig(Section):
    """The learning rate over the steps."""

    kind: Literal["constant", "linear", "cosine"] = "constant"
    """Course of the rates after the warm-up: constant, or falling to zero at `max_epochs`."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps in which the rates rise from zero to their full values."""


class DeepSpeedConfig(Section):
    """The engine of the dense weights (backbone and encoder)."""

    zero_stage: Literal[0, 1, 2] = 0
    """ZeRO stage: DeepSpeed partitions nothing (0), optimizer states (1), and gradients too (2) over the ranks."""
    bf16: bool = False
    """Compute the dense weights in bfloat16 with float32 master weights, which validations and the finished model use;
    gradients are summed in float32. Needs zero_stage 1 or 2."""

    @model_validator(mode="after")
    def _check(self) -> DeepSpeedConfig:
        if self.bf16 and self.zero_stage == 0:
            raise ValueError("`bf16` needs zero_stage 1 or 2, which keep the float32 master weights")
        return self


class FinishConfig(Section):
    """A second phase of training, from the best weights of the first one on, with other samples and lower rates."""

    positions: Literal["all", "last"] = "last"
    """Positions of this phase, as in `train`."""
    batch_size: Count = 256
    """Batch size of this phase, as in `train`."""
    rate_factor: Positive = 0.3
    """Factor on both learning rates, which are constant in this phase."""
    max_epochs: Count = 10
    """Epochs of this phase at most."""
    patience: Count = 3
    """Validations of this phase without improvement before training stops."""


class TrainConfig(Section):
    """The training loop."""

    resources: Annotated[RankResources, OPERATIONAL] = RankResources()
    positions: Literal["all", "last"] = "all"
    """`all`: every position of a window predicts its next item in one causal pass; `last`: one sample per prefix."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of a window that repeats the end of the window before it, as history; for `positions: all` and users with
    more targets than one window holds."""
    masking: Annotated[OpenFraction | None, Added()] = None
    """Share of the items of histories that are hidden from the model in a step, such as 0.2; null: none."""
    batch_size: Count = 64
    """Samples (windows or prefixes) of one optimizer step over all workers together."""
    shuffle_users: Count = 1_000_000
    """Users in the shuffle buffer: so many users' sequences are in memory at a time, on all ranks together, and their
    samples are shuffled. A log with more users is read again in each epoch, in blocks of users in random order."""
    accumulation: Count = 1
    """Micro-batches that an optimizer step is split into."""
    max_epochs: Count = 100
    """Passes over the training samples at most; `patience` may end training earlier."""
    max_steps: Count | None = None
    """Optimizer steps at most; null: no limit but `max_epochs`."""
    learning_rate: Positive = 3e-3
    """Learning rate of the dense weights: backbone and encoder."""
    table_learning_rate: Positive = 1e-2
    """Learning rate of the ID embeddings, whose rows are touched far less often than the dense weights."""
    weight_decay: NonNegative = 1e-6
    """L2 term of Adam, on dense weights and on the rows that a step touches."""
    averaging: Annotated[OpenFraction | None, Added()] = 0.1
    """Mean age of the weights in their average, as a share of the steps so far; validations score the average, and the
    finished model holds it. null: the last weights."""
    max_grad_norm: Positive | None = None
    """Largest norm of a gradient; one above it is scaled down, dense weights and table rows each by their own norm."""
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    validate_every: Count = 1
    """Epochs between validations."""
    validation_targets: Count | None = None
    """Targets of a validation, drawn once at random; null: all."""
    monitor: str = "ndcg@20"
    """Validation metric of early stopping and of the choice of the best weights."""
    patience: Count = 10
    """Validations without improvement before training stops."""
    finish: FinishConfig | None = None
    """Second phase, from the best weights on, where training would stop; `{}`: with its defaults; null: none."""
    checkpoint_steps: Annotated[Count | None, OPERATIONAL] = None
    """Steps between checkpoints inside of an epoch; null: checkpoints only after validations."""
    log_steps: Annotated[Count, OPERATIONAL] = 20
    """Steps between reports of the loss."""
