"""Puts encoder, backbone and loss together, as the configuration chooses them."""

from __future__ import annotations

import torch

from alphafuse.config import Config
from alphafuse.data.popularity import count_trained_items
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.encoders.base import build_encoder
from alphafuse.recommenders.base import build_backbone, chosen_dropout
from alphafuse.recommenders.dreamrec import DreamRec
from alphafuse.storage.workspace import Workspace
from alphafuse.training.objectives.dense_model import DenseModel
from alphafuse.training.objectives.diffusion_objective import DiffusionObjective
from alphafuse.training.objectives.scoring_objective import ScoringObjective


def build_objective(config: Config, workspace: Workspace, communicator: Communicator) -> DenseModel:
    """Encoder, backbone and loss, with weights initialised from the seed, equal on every rank."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = build_encoder(config, workspace)
        targets = workspace.artifact("sequences").require().details.get("targets", {}).get("train", 0)
        backbone = build_backbone(config.model, config.seed, chosen_dropout(targets))
    if isinstance(backbone, DreamRec):
        return DiffusionObjective(encoder, backbone, config.seed, config.train.loss.temperature)
    return ScoringObjective(encoder, backbone, config.train.loss, count_trained_items(workspace), communicator)
