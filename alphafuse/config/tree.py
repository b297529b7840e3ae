"""The sections for what comes after training, and the whole tree."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alphafuse.config.data import DataConfig
from alphafuse.config.encoders import AlphaFuseConfig, IdConfig
from alphafuse.config.language import DecomposeConfig, EmbedConfig
from alphafuse.config.model import ModelConfig
from alphafuse.config.monitoring import MonitoringConfig
from alphafuse.config.section import Count, Fraction, NonNegative, Section
from alphafuse.config.training import TrainConfig


class EvaluateConfig(Section):
    """Exact ranking over the full catalog."""

    cutoffs: tuple[Count, ...] = (1, 5, 10, 20, 50)
    """K of the metrics HR@K, NDCG@K and MRR@K."""
    similarity: Literal["trained", "dot", "cosine"] = "trained"
    """`trained`: as in the loss."""
    exclude_seen: bool = True
    """Leave items of the user's earlier history (but for the target) out of the ranking, as recommendations do."""
    tail_share: Fraction = 0.8
    """This share of the items, the least popular in training, is the tail."""
    tail_user_length: Count = 10
    """Users with at most this many interactions in all are tail users."""
    short_history: Count = 5
    """Histories with at most this many items count as short."""
    query_batch: Count = 512
    """Queries ranked at a time."""

    @property
    def metrics(self) -> list[str]:
        """Names of what is measured."""
        return [f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in self.cutoffs]


class RecommendConfig(Section):
    """Top items for users or histories."""

    top_k: Count = 10
    """Items for each user."""
    exclude_seen: bool = True
    """Leave out what the history holds."""
    users: str | None = None
    """Parquet with the column user_id, or with user_id and history (list of item ids); null: every test user."""


class NodeGroupConfig(Section):
    """Machines of one kind that an autoscaling cluster adds when they are needed."""

    max_nodes: Count
    """How many there may be, those that are there included."""
    cpus: NonNegative = 0
    """Of each."""
    gpus: NonNegative = 0
    """Of each."""


class RayConfig(Section):
    """Where the jobs run."""

    address: str | None = None
    """Of an existing cluster ("auto", "host:port", "ray://…"); null: an embedded one on this machine."""
    num_cpus: Count | None = None
    """CPUs of the embedded cluster; null: all of the machine."""
    node_groups: dict[str, NodeGroupConfig] = Field(default_factory=dict)
    """What an autoscaling cluster may grow to, by the name of the group, whose machines have a custom resource of this
    name: a stage that finds no room yet then waits for them. `alphafuse submit --grows FILE` fills this in."""


class Config(Section):
    """A whole run."""

    workspace: str
    """Folder or URI that holds everything the run makes."""
    seed: Annotated[int, Field(ge=0)] = 22
    """Of everything that is drawn."""
    data: DataConfig
    embed: EmbedConfig = EmbedConfig()
    decompose: DecomposeConfig = DecomposeConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    recommend: RecommendConfig = RecommendConfig()
    ray: RayConfig = RayConfig()
    monitoring: MonitoringConfig = MonitoringConfig()

    @model_validator(mode="after")
    def _check(self) -> Config:
        self._check_encoder()
        valid = self.evaluate.metrics
        if self.train.monitor not in valid:
            raise ValueError(f"train.monitor {self.train.monitor!r} is not measured; valid: {', '.join(valid)}")
        self._check_diffusion()
        return self

    def _check_encoder(self) -> None:
        """What the method of the items wants of the other sections."""
        encoder, loss, null_dim = self.model.encoder, self.train.loss, self.decompose.null_dim
        decomposed = {"features", "nullspace"} & set(encoder.reads)
        if decomposed and null_dim is not None and null_dim >= self.directions:
            raise ValueError(
                f"decompose.null_dim ({null_dim}) must be smaller than the number of kept directions "
                f"({self.directions}: decompose.directions, or model.hidden_dim), the rest of which is the row space"
            )
        undirected = isinstance(encoder, IdConfig) and encoder.initialization == "zeros"
        if undirected and (loss.similarity == "cosine" or self.model.backbone.name == "dreamrec"):
            raise ValueError(
                "the encoder 'id' cannot learn from zeros with cosines, since they have no direction, nor with the "
                "backbone `dreamrec`, whose error is none when all vectors are alike; take initialization: normal"
            )
        if encoder.width_of_features and self.directions != self.model.hidden_dim:
            raise ValueError(
                f"the encoder {encoder.name!r} takes the features as they are, so decompose.directions "
                f"({self.directions}) must be model.hidden_dim ({self.model.hidden_dim}), or left out"
            )
        if isinstance(encoder, AlphaFuseConfig) and encoder.euclidean and self.train.deepspeed.bf16:
            raise ValueError(
                "train.deepspeed.bf16 would round the basis of the null space, which a euclidean id_space or "
                "injection_space projects with; set it to false"
            )

    def _check_diffusion(self) -> None:
        backbone, loss = self.model.backbone.name, self.train.loss.name
        if (backbone == "dreamrec") != (loss == "diffusion"):
            raise ValueError(
                "model.backbone.name `dreamrec` and train.loss.name `diffusion` go together "
                f"(found `{backbone}` and `{loss}`)"
            )
        if backbone == "dreamrec" and self.similarity != "dot":
            raise ValueError(
                f"evaluate.similarity must be `trained` or `dot` with the backbone `dreamrec`, not `{self.similarity}`"
            )

    @property
    def directions(self) -> int:
        """How many directions of the language embeddings are kept."""
        return self.decompose.directions or self.model.hidden_dim

    @property
    def split_seed(self) -> int:
        """Of what the split draws: its own, or else the run's."""
        return self.seed if self.data.split.seed is None else self.data.split.seed

    @property
    def decompose_seed(self) -> int:
        """Of the randomized range finder: its own, or else the run's."""
        return self.seed if self.decompose.seed is None else self.decompose.seed

    @property
    def similarity(self) -> Literal["cosine", "dot"]:
        """What items are ranked by."""
        wanted = self.evaluate.similarity
        return self.train.loss.similarity if wanted == "trained" else wanted
