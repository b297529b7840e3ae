"""Trains SASRec of RecTools and lists items: `python rectools_sasrec.py FOLDER`, in an environment with RecTools.

Imports nothing of this project: RecTools needs other versions of the packages that both have. `FOLDER` holds
`interactions.parquet` (user_id, item_id, datetime, weight), of whose last one of each user training stops by, and
`settings.json`.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


def last_interactions(interactions: pd.DataFrame) -> pd.Series:
    """Mark the last interaction of each user, which validates."""
    latest = interactions.sort_values(Columns.Datetime, ascending=False, kind="stable")
    return latest.groupby(Columns.User, sort=False).cumcount().reindex(interactions.index) == 0


def make_trainer(folder: str, epochs: int, patience: int) -> Trainer:
    """Make a trainer that stops when the validation loss does not fall any more, and keeps the best weights."""
    monitored: dict[str, Any] = {"monitor": SASRecModel.val_loss_name, "mode": "min"}
    best = ModelCheckpoint(dirpath=folder, filename="best", **monitored)
    stopping = EarlyStopping(patience=patience, **monitored)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(max_epochs=epochs, accelerator="cpu", devices=1, callbacks=[best, stopping], **quiet)


def main() -> None:
    """Write `lists.parquet` (user_id, item_id, rank) and `measured.json`."""
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "settings.json").read_text())
    torch.set_num_threads(settings["threads"])
    seed_everything(settings["seed"])
    interactions = pd.read_parquet(folder / "interactions.parquet")
    dataset = Dataset.construct(interactions)
    model = SASRecModel(
        session_max_len=settings["history_length"],
        get_val_mask_func=last_interactions,
        get_trainer_func=make_trainer,
        get_trainer_func_kwargs={
            "folder": str(folder),
            "epochs": settings["epochs"],
            "patience": settings["patience"],
        },
        recommend_torch_device="cpu",
    )
    began = time.perf_counter()
    model.fit(dataset)
    seconds = time.perf_counter() - began
    epochs = model.fit_trainer.current_epoch
    model.load_weights_from_checkpoint(folder / "best.ckpt")
    users = interactions[Columns.User].unique()
    lists = model.recommend(users, dataset, k=settings["k"], filter_viewed=True)
    lists[[Columns.User, Columns.Item, Columns.Rank]].to_parquet(folder / "lists.parquet")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    measured = {"minutes": seconds / 60, "epochs": epochs, "GiB": peak}
    (folder / "measured.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
