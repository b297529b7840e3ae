"""The one configuration tree: YAML in, typed and checked objects out.

Every setting has one home here, with its default and its meaning, in the file of its section.
"""

from alphafuse.config.data import CatalogConfig, DataConfig, InteractionsConfig, SplitConfig
from alphafuse.config.grid import EnsembleConfig, GridConfig, MethodConfig, load_grid
from alphafuse.config.language import DecomposeConfig, EmbedConfig
from alphafuse.config.loading import load_config, parse_config
from alphafuse.config.model import AlphaFuseConfig, IdConfig, ModelConfig, SASRecConfig
from alphafuse.config.training import DeepSpeedConfig, LossConfig, ScheduleConfig, TrainConfig
from alphafuse.config.tree import Config, EvaluateConfig, RayConfig, RecommendConfig

__all__ = [
    "AlphaFuseConfig",
    "CatalogConfig",
    "Config",
    "DataConfig",
    "DecomposeConfig",
    "DeepSpeedConfig",
    "EmbedConfig",
    "EnsembleConfig",
    "EvaluateConfig",
    "GridConfig",
    "IdConfig",
    "InteractionsConfig",
    "LossConfig",
    "MethodConfig",
    "ModelConfig",
    "RayConfig",
    "RecommendConfig",
    "SASRecConfig",
    "ScheduleConfig",
    "SplitConfig",
    "TrainConfig",
    "load_config",
    "load_grid",
    "parse_config",
]
