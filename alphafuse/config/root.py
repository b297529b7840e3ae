"""The whole configuration: all sections, and the checks that concern several of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alphafuse.config.base import Section
from alphafuse.config.sections.data import DataConfig
from alphafuse.config.sections.decompose import DecomposeConfig
from alphafuse.config.sections.embed import EmbedConfig
from alphafuse.config.sections.evaluate import EvaluateConfig
from alphafuse.config.sections.export import ExportConfig
from alphafuse.config.sections.model import ModelConfig
from alphafuse.config.sections.monitoring import MonitoringConfig
from alphafuse.config.sections.ray import RayConfig
from alphafuse.config.sections.recommend import RecommendConfig
from alphafuse.config.sections.serve import ServeConfig
from alphafuse.config.sections.train import TrainConfig
from alphafuse.config.sections.update import UpdateConfig


class Config(Section):
    """A whole run."""

    workspace: str
    """Folder or URI of all files that the run writes."""
    seed: Annotated[int, Field(ge=0)] = 22
    """Random seed of the run."""
    registry: str | None = None
    """Folder or URI of the registry of versions (`alphafuse models`); a run or update of all stages that has finished
    is added to it and becomes the candidate. null: to none."""
    data: DataConfig
    embed: EmbedConfig = EmbedConfig()
    decompose: DecomposeConfig = DecomposeConfig()
    model: ModelConfig = Field(default_factory=ModelConfig)
    train: TrainConfig = TrainConfig()
    update: UpdateConfig = UpdateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    recommend: RecommendConfig = RecommendConfig()
    export: ExportConfig = ExportConfig()
    serve: ServeConfig = ServeConfig()
    ray: RayConfig = RayConfig()
    monitoring: MonitoringConfig = MonitoringConfig()

    @model_validator(mode="after")
    def _check(self) -> Config:
        if "://" in self.workspace and "?" in self.workspace:
            raise ValueError(
                "workspace must not have a query ('?…'), since the names of files come after it: region and address of "
                "a store are set in the environment (AWS_DEFAULT_REGION, AWS_ENDPOINT_URL)"
            )
        self._check_directions()
        self.model.encoder.check(self)
        self.model.backbone.check(self)
        valid = self.evaluate.metrics
        if self.train.monitor not in valid:
            raise ValueError(f"train.monitor {self.train.monitor!r} is not measured; valid: {', '.join(valid)}")
        self._check_diffusion()
        return self

    def _check_directions(self) -> None:
        """Check that the kept directions have a row space, and are as many as the encoder needs."""
        encoder, null_dim = self.model.encoder, self.decompose.null_dim
        decomposed = {"features", "nullspace"} & set(encoder.reads)
        if decomposed and null_dim is not None and null_dim >= self.directions:
            raise ValueError(
                f"decompose.null_dim ({null_dim}) must be smaller than the number of kept directions "
                f"({self.directions}: decompose.directions, or model.hidden_dim), the rest of which is the row space"
            )
        if encoder.width_of_features and self.directions != self.model.hidden_dim:
            raise ValueError(
                f"the encoder {encoder.name!r} takes the features as they are, so decompose.directions "
                f"({self.directions}) must be model.hidden_dim ({self.model.hidden_dim}), or left out"
            )

    def _check_diffusion(self) -> None:
        """Check that a backbone that generates item vectors has the loss and the similarity for it."""
        backbone, loss = self.model.backbone, self.train.loss.name
        if backbone.generates != (loss == "diffusion"):
            raise ValueError(
                "model.backbone.name `dreamrec` and train.loss.name `diffusion` go together "
                f"(found `{backbone.name}` and `{loss}`)"
            )
        if backbone.generates and self.similarity != "dot":
            raise ValueError(
                f"evaluate.similarity must be `trained` or `dot` with the backbone `{backbone.name}`, not "
                f"`{self.similarity}`"
            )

    @property
    def directions(self) -> int:
        """Number of directions of the language embeddings that are kept."""
        return self.decompose.directions or self.model.hidden_dim

    @property
    def split_seed(self) -> int:
        """Seed of what the split draws: its own, or else the run's."""
        return self.seed if self.data.split.seed is None else self.data.split.seed

    @property
    def decompose_seed(self) -> int:
        """Seed of the randomized range finder: its own, or else the run's."""
        return self.seed if self.decompose.seed is None else self.decompose.seed

    @property
    def similarity(self) -> Literal["cosine", "dot"]:
        """Similarity that items are ranked by."""
        wanted = self.evaluate.similarity
        return self.train.loss.similarity if wanted == "trained" else wanted
