"""The one configuration tree: YAML in, typed and checked objects out.

Every setting has one home here, with its default and its meaning, in the file of its section.
"""

from alphafuse.config.grid import EnsembleConfig, GridConfig, MethodConfig, load_grid
from alphafuse.config.loading import load_config, parse_config
from alphafuse.config.root import Config
from alphafuse.config.sections.data import CatalogConfig, DataConfig, InteractionsConfig, SourceConfig, SplitConfig
from alphafuse.config.sections.decompose import DecomposeConfig
from alphafuse.config.sections.embed import EmbedConfig
from alphafuse.config.sections.evaluate import EvaluateConfig
from alphafuse.config.sections.export import ExportConfig
from alphafuse.config.sections.model import BackboneConfig, EncoderConfig, ModelConfig
from alphafuse.config.sections.monitoring import MonitoringConfig
from alphafuse.config.sections.ray import NodeGroupConfig, RayConfig
from alphafuse.config.sections.recommend import RecommendConfig
from alphafuse.config.sections.serve import ServeConfig
from alphafuse.config.sections.train import DeepSpeedConfig, FinishConfig, LossConfig, ScheduleConfig, TrainConfig

__all__ = [
    "BackboneConfig",
    "CatalogConfig",
    "Config",
    "DataConfig",
    "DecomposeConfig",
    "DeepSpeedConfig",
    "EmbedConfig",
    "EncoderConfig",
    "EnsembleConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FinishConfig",
    "GridConfig",
    "InteractionsConfig",
    "LossConfig",
    "MethodConfig",
    "ModelConfig",
    "MonitoringConfig",
    "NodeGroupConfig",
    "RayConfig",
    "RecommendConfig",
    "ScheduleConfig",
    "ServeConfig",
    "SourceConfig",
    "SplitConfig",
    "TrainConfig",
    "load_config",
    "load_grid",
    "parse_config",
]
