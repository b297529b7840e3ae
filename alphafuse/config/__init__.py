"""The one configuration tree: YAML in, typed and checked objects out.

Every setting has one home here, with its default and its meaning, in the file of its section.
"""

from alphafuse.config.backbones import DreamRecConfig, GRU4RecConfig, HSTUConfig, SASRecConfig
from alphafuse.config.data import CatalogConfig, DataConfig, InteractionsConfig, SplitConfig
from alphafuse.config.decompose import DecomposeConfig
from alphafuse.config.embed import EmbedConfig
from alphafuse.config.encoders import (
    AlphaFuseConfig,
    IdConfig,
    IDreamRecConfig,
    LLMESRConfig,
    LLMInitConfig,
    MoRecConfig,
    RLMRecContrastiveConfig,
    RLMRecGenerativeConfig,
    UniSRecConfig,
    WhitenRecConfig,
)
from alphafuse.config.evaluate import EvaluateConfig
from alphafuse.config.grid import EnsembleConfig, GridConfig, MethodConfig, load_grid
from alphafuse.config.loading import load_config, parse_config
from alphafuse.config.model import ModelConfig
from alphafuse.config.monitoring import MonitoringConfig
from alphafuse.config.ray import NodeGroupConfig, RayConfig
from alphafuse.config.recommend import RecommendConfig
from alphafuse.config.root import Config
from alphafuse.config.train import DeepSpeedConfig, FinishConfig, LossConfig, ScheduleConfig, TrainConfig

__all__ = [
    "AlphaFuseConfig",
    "CatalogConfig",
    "Config",
    "DataConfig",
    "DecomposeConfig",
    "DeepSpeedConfig",
    "DreamRecConfig",
    "EmbedConfig",
    "EnsembleConfig",
    "EvaluateConfig",
    "FinishConfig",
    "GRU4RecConfig",
    "GridConfig",
    "HSTUConfig",
    "IDreamRecConfig",
    "IdConfig",
    "InteractionsConfig",
    "LLMESRConfig",
    "LLMInitConfig",
    "LossConfig",
    "MethodConfig",
    "MoRecConfig",
    "ModelConfig",
    "MonitoringConfig",
    "NodeGroupConfig",
    "RLMRecContrastiveConfig",
    "RLMRecGenerativeConfig",
    "RayConfig",
    "RecommendConfig",
    "SASRecConfig",
    "ScheduleConfig",
    "SplitConfig",
    "TrainConfig",
    "UniSRecConfig",
    "WhitenRecConfig",
    "load_config",
    "load_grid",
    "parse_config",
]
