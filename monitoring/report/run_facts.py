"""Gathers the content of the report from the artefacts of a workspace. Missing content is None, never invented."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from alphafuse.data.catalog_lookup import item_names
from alphafuse.evaluation.ranking_metrics import measured_cutoffs
from alphafuse.events import StageFinished, StageStarted
from alphafuse.nullspace.decomposition import load_nullspace
from alphafuse.stages import ARTIFACTS, REPORT, STAGES
from alphafuse.storage.workspace import Workspace
from monitoring.run_log.event_log import read_events
from monitoring.run_log.made_with import made_with


@dataclass(frozen=True)
class Fact:
    """A line of a table of facts; `concern` marks what was dropped or repaired."""

    name: str
    value: str
    concern: bool = False


@dataclass(frozen=True)
class Timing:
    """Seconds that a stage took over all its runs; None where it has not run to its end."""

    stage: str
    seconds: float | None


@dataclass(frozen=True)
class Content:
    """The content of the page, in its order. Details and results of stages that have not run are None.

    Attributes:
        monitor: the validation metric that chose the best weights.
        spectrum: eigenvalues of the embeddings' covariance, descending.
        test_examples: as in `ExampleQueries.found`, with titles in place of item indices, and `taken`, the place of the
            target in the list, from 0, or None.
        examples: users of `recommend` with titles of their latest items, and what is recommended to them.
        update: what an update carried over, and how far its catalog has moved; empty for other runs.
    """

    title: str
    evaluation: dict[str, Any] | None
    cutoffs: tuple[int, ...]
    training: dict[str, Any] | None
    monitor: str
    nullspace: dict[str, Any] | None
    spectrum: np.ndarray | None
    update: list[Fact]
    data: list[Fact]
    embedding: list[Fact]
    quarantined: dict[str, int]
    test_examples: list[dict[str, Any]]
    examples: list[dict[str, Any]]
    timings: list[Timing]
    configuration: str


def gather(settings: Mapping[str, Any], workspace: Workspace, stability: Mapping[str, float] | None = None) -> Content:
    """The content of the page about a workspace.

    Args:
        settings: the configuration; shown for sections of which no artefact records the settings it was made with.
        stability: how far the lists of an update have moved from those of its parent
            (`alphafuse.version_comparison.Stability`).
    """
    manifests = {name: workspace.artifact(name).manifest() for name in ARTIFACTS}
    details = {name: manifest.details if manifest else None for name, manifest in manifests.items()}
    training, nullspace, embeddings = details["model"], details["nullspace"], details["embeddings"]
    evaluation = None
    if details["evaluation"] is not None:
        evaluation = json.loads(workspace.artifact("evaluation").read_file("metrics.json"))
    shown = made_with(settings, workspace)
    return Content(
        title=workspace.name,
        evaluation=evaluation,
        cutoffs=measured_cutoffs(evaluation["overall"]) if evaluation else (),
        training=training,
        monitor=shown["train"]["monitor"],
        nullspace=nullspace,
        spectrum=load_nullspace(workspace).spectrum if nullspace is not None else None,
        update=[
            *_update_facts((nullspace or {}).get("update"), training, shown["train"]["monitor"]),
            *_stability_facts(stability),
        ],
        data=[
            *_facts("catalog", details["catalog"]),
            *_facts("catalog", details["popularity"]),
            *_facts("log", details["sequences"]),
        ],
        embedding=_embedding_facts(embeddings),
        quarantined=(embeddings or {}).get("quarantined_by_reason", {}),
        test_examples=_test_examples(workspace, evaluation),
        examples=(details["recommendations"] or {}).get("examples", []),
        timings=[Timing(stage.name, _seconds(workspace, stage.name)) for stage in STAGES if stage is not REPORT],
        configuration=yaml.safe_dump(shown, sort_keys=False, allow_unicode=True),
    )


def _test_examples(workspace: Workspace, evaluation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    found = (evaluation or {}).get("examples", [])  # evaluations of before have none
    items = [item for each in found for item in (*each["history"], *each["ranked"], each["target"])]
    if not items:
        return []
    names = item_names(workspace.artifact("catalog"), np.array(items), ["title"])
    titles = dict(zip(names["item_index"].to_pylist(), names["title"].to_pylist(), strict=True))
    return [
        {
            **each,
            "history": [titles[item] for item in each["history"]],
            "ranked": [titles[item] for item in each["ranked"]],
            "target": titles[each["target"]],
            "taken": each["ranked"].index(each["target"]) if each["target"] in each["ranked"] else None,
        }
        for each in found
    ]


# Counts of `prepare` that are totals; any other count says that rows were dropped or repaired.
_PLAIN_COUNTS = {"items", "users", "rows_read", "interactions", "held_out_interactions", "held_out_items"}


def _facts(prefix: str, details: Mapping[str, Any] | None) -> list[Fact]:
    """Counts of `prepare`: totals, and counts of dropped or repaired rows that are not zero."""
    facts = []
    for name, value in (details or {}).items():
        if isinstance(value, Mapping):
            facts += [Fact(f"{prefix}: {part} {name}", f"{count:,}") for part, count in value.items()]
        elif isinstance(value, int) and (value or name in _PLAIN_COUNTS):
            facts.append(Fact(f"{prefix}: {name.replace('_', ' ')}", f"{value:,}", name not in _PLAIN_COUNTS))
    return facts


def _update_facts(drift: Mapping[str, Any] | None, training: Mapping[str, Any] | None, monitor: str) -> list[Fact]:
    facts = []
    if drift is not None:
        facts.append(Fact("null space", f"{drift['kind']} ({drift['reason']})", drift["kind"] == "recomputed"))
        facts.append(Fact("move of the mean, in standard deviations", f"{drift['shift']:.3g}"))
        facts += [Fact(f"angle of the {name}", f"{drift[key]:.1f}°") for name, key in _ANGLES.items()]
    begun = (training or {}).get("update")
    if begun is not None:
        facts += [Fact(f"items {name}", f"{begun[name]:,}") for name in ("carried", "new", "removed")]
        facts.append(Fact("moments of Adam", "carried" if begun["moments"] else "begun at zero", not begun["moments"]))
        facts.append(Fact(f"validation {monitor} before the first step", f"{begun[monitor]:.4f}"))
    return facts


def _stability_facts(stability: Mapping[str, float] | None) -> list[Fact]:
    if stability is None:
        return []
    names = {"overlap": "overlap@10 with the parent's lists", "rank_correlation": "rank correlation of the scores"}
    facts = [Fact(names[name], f"{stability[name]:.3f}") for name in names if name in stability]
    return [*facts, Fact("histories asked for this", f"{stability['queries']:,.0f}")]


_ANGLES = {"row space": "row_angle", "null space": "null_angle", "kept directions": "kept_angle"}


def _embedding_facts(details: Mapping[str, Any] | None) -> list[Fact]:
    if details is None:
        return []
    encoder = details.get("encoder", {})
    described = {name: encoder[name] for name in encoder if name != "files" and encoder[name] is not None}
    counted = {name: value for name, value in details.items() if isinstance(value, (int, float)) and value}
    concerns = {"empty", "quarantined", "unknown_ids"}
    return [
        Fact(
            name.replace("_", " "),
            f"{value:,}" if isinstance(value, (int, float)) and value is not True else str(value),
            name in concerns,
        )
        for name, value in {**described, **counted}.items()
    ]


def _seconds(workspace: Workspace, stage: str) -> float | None:
    """Seconds of a stage, from each "started" to the "finished" that follows; runs that were cut off or skipped do not
    count. None where the stage has never finished."""
    total, started = None, None
    for event in read_events(workspace, stage):
        if isinstance(event, StageStarted):
            started = event.time
        elif isinstance(event, StageFinished) and started is not None:
            total = (total or 0.0) + event.time - started
            started = None
    return total
