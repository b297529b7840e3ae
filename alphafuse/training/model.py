"""Puts a model together from the configuration and the workspace, and gives a trained one back for scoring."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import safetensors.torch
import torch
from torch import nn

from alphafuse.config import Config, DreamRecConfig, GRU4RecConfig, HSTUConfig, SASRecConfig
from alphafuse.data.popularity import load_held_out
from alphafuse.distributed.communicator import Communicator
from alphafuse.items.encoders.base import FrozenFeatures, ItemEncoder
from alphafuse.items.encoders.build import build_encoder
from alphafuse.items.item_table import ItemTable
from alphafuse.items.row_adam import RowAdam
from alphafuse.recommenders.diffusion import Diffusion, remaining_signal
from alphafuse.recommenders.dreamrec import DreamRec
from alphafuse.recommenders.gru4rec import GRU4Rec
from alphafuse.recommenders.hstu import HSTU
from alphafuse.recommenders.sasrec import SASRec
from alphafuse.storage.matrices import iterate_rows
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoint import DENSE_FILE, read_table_rows
from alphafuse.training.dense_model import DenseModel
from alphafuse.training.diffusion_objective import DiffusionObjective
from alphafuse.training.objective import Objective

BLOCK_ROWS = 65_536


def build_backbone(config: Config, encoder: ItemEncoder) -> nn.Module:
    """The backbone that `model.backbone` names, with what the encoder puts around the part that reads histories."""
    width, length, backbone = config.model.hidden_dim, config.model.history_length, config.model.backbone
    reader: nn.Module
    match backbone:
        case SASRecConfig() | DreamRecConfig():
            reader = SASRec(width, length, backbone.num_layers, backbone.num_heads, backbone.dropout)
        case GRU4RecConfig():
            reader = GRU4Rec(width, backbone.state_dim or width, backbone.num_layers, backbone.dropout)
        case HSTUConfig():
            reader = HSTU(width, length, backbone.num_layers, backbone.num_heads, backbone.dropout)
    reader = encoder.wrap(reader)
    if not isinstance(backbone, DreamRecConfig):
        return reader
    diffusion = Diffusion(remaining_signal(backbone.schedule, backbone.timesteps, backbone.beta_range))
    item_dim = encoder.num_parts * width  # only the history is read by parts: whole item vectors are generated
    return DreamRec(reader, item_dim, diffusion, backbone.guidance, backbone.sampling_stride, config.seed)


def build_objective(config: Config, workspace: Workspace, communicator: Communicator) -> DenseModel:
    """Encoder, backbone and loss, with weights initialised from the seed, equal on every rank."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = build_encoder(config, workspace)
        num_items = int((~load_held_out(workspace)).sum())
        backbone = build_backbone(config, encoder)
        if isinstance(config.model.backbone, DreamRecConfig):
            assert isinstance(backbone, DreamRec)
            drop_rate, temperature = config.model.backbone.condition_dropout, config.train.loss.temperature
            return DiffusionObjective(encoder, backbone, drop_rate, config.seed, temperature)
        return Objective(encoder, backbone, config.train.loss, num_items, communicator)


def build_table(
    config: Config,
    workspace: Workspace,
    encoder: ItemEncoder,
    communicator: Communicator,
    device: torch.device,
    trains: bool = True,
) -> ItemTable:
    """This rank's part of the item table: its features from the workspace, its trainable rows at their start.

    Args:
        trains: False leaves out what only an update needs.
    """
    num_items = workspace.artifact("catalog").require().rows
    frozen = encoder.frozen
    feature_dim = 0 if frozen is None else frozen.dim
    optimizer = RowAdam(weight_decay=config.train.weight_decay)
    table = ItemTable(num_items, feature_dim, encoder.trainable_dim, optimizer, communicator, device, trains)
    start, stop = table.partition.range(communicator.rank)
    for first in range(start, stop, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, stop)
        table.trainable[first - start : last - start] = encoder.initial_rows(first, last, config.seed).to(device)
    # Nothing but their text is known of these items: no step touches their rows.
    held_out = torch.from_numpy(load_held_out(workspace)[start:stop]).to(device)
    table.trainable[held_out] = 0
    if encoder.initialization == "features":
        _read(FrozenFeatures("features", slice(0, encoder.trainable_dim)), workspace, start, table.trainable)
    if frozen is not None:
        _read(frozen, workspace, start, table.features)
    _begin_without_text(encoder, table, held_out, config.seed)
    return table


def _begin_without_text(encoder: ItemEncoder, table: ItemTable, held_out: torch.Tensor, seed: int) -> None:
    """Begin as IDs do where there is no text whose features the vector would begin as: a vector of zeros has no
    direction, and its first gradient, of a cosine, would be of the size 1 / `SHORTEST`.

    Args:
        held_out: [rows], items that stay as they are.
    """
    text = table.trainable if encoder.initialization == "features" else table.features  # [rows, dim]
    if encoder.initialization == "normal" or not (encoder.trainable_dim and text.shape[1]):
        return
    for first in range(0, len(text), BLOCK_ROWS):
        block = slice(first, first + BLOCK_ROWS)
        bare = ~(text[block].any(dim=1) | held_out[block])  # [rows of the block]
        if bare.any():
            begin = table.first_row + first
            rows = encoder.normal_rows(begin, begin + len(bare), seed).to(text.device)
            table.trainable[block][bare] = rows[bare]


def _read(frozen: FrozenFeatures, workspace: Workspace, start: int, rows: torch.Tensor) -> None:
    """Fill `rows` [rows, dim] with the features of the items from `start` on."""
    column = {"features": "features", "embeddings": "embedding"}[frozen.artifact]
    for first, block, present in iterate_rows(workspace.artifact(frozen.artifact), column, start, start + len(rows)):
        values = frozen.scale * torch.tensor(block[:, frozen.columns], dtype=rows.dtype)
        if frozen.mean is not None:
            values[torch.from_numpy(present)] -= torch.from_numpy(frozen.mean)
        rows[first - start : first - start + len(block)] = values.to(rows.device)


class ScoringModel:
    """A model as evaluation and recommendation see it: item vectors of this rank, hidden states of histories.

    Attributes:
        num_items: of the catalog.
        first_row: item index of the first of this rank's item vectors.
        history_length: longest history that the model takes.
    """

    def __init__(self, objective: DenseModel, table: ItemTable, history_length: int) -> None:
        self.history_length = history_length
        self.num_items = table.num_items
        self.first_row = table.first_row
        self._objective = objective
        self._table = table

    @torch.no_grad()
    def item_vectors(self) -> torch.Tensor:
        """Encoded items of this rank: [rows of this rank, dim]."""
        table, encoder = self._table, self._objective.encoder
        with self._without_dropout():
            dim = encoder(table.features[:0], table.trainable[:0]).shape[1]
            vectors = torch.empty(len(table.trainable), dim, device=table.trainable.device)
            for start in range(0, len(vectors), BLOCK_ROWS):
                rows = slice(start, start + BLOCK_ROWS)
                vectors[rows] = encoder(table.features[rows], table.trainable[rows])
        return vectors

    @torch.no_grad()
    def hidden_states(self, histories: torch.Tensor) -> torch.Tensor:
        """States behind the histories, int64 [queries, length] padded with −1 at the end: [queries, dim].

        A collective: every rank must call it equally often, if need be with no queries.
        """
        histories = histories.to(self._table.trainable.device)
        with self._without_dropout():
            return self._objective.hidden_states(self._table.lookup(histories), histories)

    @contextlib.contextmanager
    def _without_dropout(self) -> Iterator[None]:
        training = self._objective.training
        self._objective.eval()
        try:
            yield
        finally:
            self._objective.train(training)


def load_trained(
    config: Config, workspace: Workspace, communicator: Communicator, device: torch.device | None = None
) -> ScoringModel:
    """The best weights of a finished training.

    Raises:
        WorkspaceError: training has not finished, or a file is damaged.
    """
    device = device or torch.device("cpu")
    artifact = workspace.artifact("model")
    artifact.require()
    objective = build_objective(config, workspace, communicator)
    objective.load_state_dict(safetensors.torch.load(artifact.read_file(DENSE_FILE)))
    table = build_table(config, workspace, objective.encoder, communicator, device, trains=False)
    table.trainable.copy_(read_table_rows(artifact, "rows", table))
    return ScoringModel(objective.to(device), table, config.model.history_length)
