"""The stages of a run, from the sources to the report: what each makes, reads and runs on, in their order.

A stage is declared here and nowhere else; all other code asks this module. Its work is done in `jobs.stages`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alphafuse.errors import ConfigError

if TYPE_CHECKING:
    from alphafuse.config import Config
    from alphafuse.config.sections.resources import Resources
    from alphafuse.storage.workspace import Workspace


def _always(config: Config) -> bool:
    return True


def _nothing(config: Config) -> tuple[str, ...]:
    return ()


EXPORT_FORMAT = 1
"""Version of the files of the artefact `export`; it rises when an older program could not read them."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of a run.

    Attributes:
        name: name of the stage, of its command and of its event log.
        help: what the stage does, in one line for the command line.
        artifacts: folders of the workspace that it makes, in the order in which it commits them.
        settings: gives the settings that the stage's artefacts depend on, as plain values.
        reads: gives the artefacts of earlier stages whose fingerprints are among the stage's `inputs`.
        resources: dotted key of the resources that the stage runs on; empty: it needs no machines.
        is_needed: tells whether a run of this configuration has the stage.
        continues: tells whether an update makes the stage's first artefact from that of the parent, whose fingerprint
            is then among its inputs.
        is_shared: tells whether runs of a comparison with the same settings run the stage once, together.
    """

    name: str
    help: str
    artifacts: tuple[str, ...]
    settings: Callable[[Config], dict[str, Any]]
    reads: Callable[[Config], tuple[str, ...]] = _nothing
    resources: str = "train.resources"
    is_needed: Callable[[Config], bool] = _always
    continues: bool = False
    is_shared: bool = False

    def resources_of(self, config: Config) -> Resources:
        """The resources that a configuration gives to this stage, which must need some."""
        section, _, _ = self.resources.partition(".")
        resources: Resources = getattr(config, section).resources
        return resources

    def inputs(self, config: Config, workspace: Workspace) -> dict[str, Any]:
        """Return what the stage's fingerprint covers: its settings, and the fingerprints of artefacts that it reads.

        Raises:
            WorkspaceError: an artefact that the stage reads is not finished.
        """
        read = {name: workspace.artifact(name).require().fingerprint for name in self.reads(config)}
        return {**self.settings(config), **read, **self.parent_inputs(config, workspace)}

    def parent_inputs(self, config: Config, workspace: Workspace) -> dict[str, str]:
        """Return the fingerprint of the parent's artefact that an update continues. Where the parent has been deleted
        since, it is the one that a finished artefact was made from.

        Raises:
            WorkspaceError: the parent has no such artefact.
        """
        if not self.continues or config.update.parent is None:
            return {}
        name, parent = self.artifacts[0], workspace.other(config.update.parent)
        made = workspace.artifact(name).manifest()
        if made is not None and "parent" in made.inputs and not parent.artifact(name).folder.exists():
            return {"parent": made.inputs["parent"]}
        return {"parent": parent.artifact(name).require().fingerprint}

    def is_finished(self, workspace: Workspace) -> bool:
        """Tell whether all artefacts of the stage are committed, whatever they were made from."""
        return all(workspace.artifact(name).manifest() is not None for name in self.artifacts)


def _decompose_settings(config: Config) -> dict[str, Any]:
    return {**config.decompose.result_settings(), "directions": config.directions}


def _train_settings(config: Config) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "seed": config.seed,
        "model": config.model.model_dump(mode="json"),
        "train": config.train.result_settings(),
        "validation": config.evaluate.model_dump(mode="json", include={"cutoffs", "similarity", "exclude_seen"}),
    }
    if "embeddings" in config.model.encoder.reads:
        settings["scale"] = config.decompose.scale
    if config.update.parent is not None:
        settings["update"] = config.update.model_dump(mode="json", include={"max_epochs", "patience"})
    return settings


def _evaluate_settings(config: Config) -> dict[str, Any]:
    measuring = config.evaluate.result_settings()
    del measuring["similarity"]  # which may be `trained`
    return {"similarity": config.similarity, "evaluate": measuring}


def _recommend_settings(config: Config) -> dict[str, Any]:
    recommending = config.recommend.result_settings()
    del recommending["users"]  # the stage adds the content of the file, whatever its path
    return {"similarity": config.similarity, "recommend": recommending}


def _export_settings(config: Config) -> dict[str, Any]:
    settings: dict[str, Any] = {"similarity": config.similarity, "format": EXPORT_FORMAT}
    # What was exported without a file that an earlier version did not know is still found.
    return {**settings, **{name: True for name in ("onnx", "index") if getattr(config.export, name)}}


PREPARE = Stage(
    "prepare",
    "Read catalog and interactions, split the users, write shards.",
    artifacts=("catalog", "sequences", "popularity"),
    settings=lambda config: config.data.result_settings(),
    resources="data.resources",
    is_shared=True,
)
EMBED = Stage(
    "embed",
    "Embed the catalog's texts with a language model.",
    artifacts=("embeddings",),
    settings=lambda config: config.embed.result_settings(),
    resources="embed.resources",
    is_needed=lambda config: bool(config.model.encoder.reads),
    is_shared=True,
)
DECOMPOSE = Stage(
    "decompose",
    "Split the embedding space into row space and null space.",
    artifacts=("nullspace", "features"),
    settings=_decompose_settings,
    resources="decompose.resources",
    is_needed=lambda config: not {"nullspace", "features"}.isdisjoint(config.model.encoder.reads),
    continues=True,
    is_shared=True,
)
TRAIN = Stage(
    "train",
    "Train the recommender, or continue a training.",
    artifacts=("model",),
    settings=_train_settings,
    reads=lambda config: ("sequences", *config.model.encoder.reads),
    continues=True,
)
EVALUATE = Stage(
    "evaluate",
    "Rank the full catalog for every test target.",
    artifacts=("evaluation",),
    settings=_evaluate_settings,
    reads=lambda config: ("model",),
)
RECOMMEND = Stage(
    "recommend",
    "Write the top items of many users, or show those of one history.",
    artifacts=("recommendations",),
    settings=_recommend_settings,
    reads=lambda config: ("model", "sequences"),
)
EXPORT = Stage(
    "export",
    "Write item vectors and weights for an index or a serving system.",
    artifacts=("export",),
    settings=_export_settings,
    reads=lambda config: ("model",),
)
REPORT = Stage(
    "report",
    "Write the HTML page of the run.",
    artifacts=("report",),
    settings=lambda config: {"config": config.model_dump(mode="json", exclude={"serve"})},
    resources="",
)

STAGES = (PREPARE, EMBED, DECOMPOSE, TRAIN, EVALUATE, RECOMMEND, EXPORT, REPORT)
"""All stages, in their order."""
STAGE_NAMES = tuple(stage.name for stage in STAGES)
ARTIFACTS = {artifact: stage for stage in STAGES for artifact in stage.artifacts}
"""Name of an artefact → the stage that makes it, in the order in which they are made."""


def find_stage(name: str) -> Stage:
    """The stage called `name`.

    Raises:
        ConfigError: there is no such stage.
    """
    if name not in STAGE_NAMES:
        raise ConfigError(f"there is no stage {name!r}; stages: {', '.join(STAGE_NAMES)}")
    return STAGES[STAGE_NAMES.index(name)]


def needed_stages(config: Config, until: Stage = REPORT) -> list[Stage]:
    """The stages of a whole run, up to and including `until`; stages that work on texts only where the model needs
    them."""
    return [stage for stage in STAGES[: STAGES.index(until) + 1] if stage.is_needed(config)]


def and_later(first: Stage) -> tuple[Stage, ...]:
    """Return a stage and all later ones, in their order."""
    return STAGES[STAGES.index(first) :]


def require_among(stages: Sequence[Stage], again: Stage | None) -> None:
    """Check that the stage to be redone, if there is one, is among those that run.

    Raises:
        ConfigError: it is none of them.
    """
    if again is not None and again not in stages:
        names = ", ".join(stage.name for stage in stages)
        raise ConfigError(f"the stage {again.name!r} to be redone is none of those to run: {names}")
