"""The file `best.yaml` of a tuning: the configuration of its best trial."""

from __future__ import annotations

import yaml

from alphafuse.config.space import SearchSpace
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.tuning.trials import Tuning

FILE = "best.yaml"


def write_best(space: SearchSpace, tuning: Tuning, folder: Folder) -> None:
    """Write `best.yaml`, a whole configuration, where a trial has been validated. Its workspace is that of the trial,
    where a run finds the model."""
    trial = tuning.best
    if trial is None or trial.best is None:
        return
    epoch, value = trial.best
    config = space.configuration(trial.settings, (folder / trial.name).uri)
    tree = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    lines = [
        f"The best of {len(tuning.trials)} trials of `alphafuse tune`: {trial.name}, {trial.state}.",
        f"Validation {tuning.metric.upper()} {value:.4f} in epoch {epoch} of {trial.epochs}. Tuned settings:",
        *(f"  {key}={yaml.safe_dump(each).splitlines()[0]}" for key, each in trial.settings.items()),
        "`alphafuse run` takes this file: it finds the trained model, or finishes its training, and tests it.",
    ]
    folder.write_bytes(FILE, "".join(f"# {line}\n" for line in lines).encode() + tree.encode())
