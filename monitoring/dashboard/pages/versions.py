"""The versions of every registry, the latest first: which one serves, its metrics, parent, drift and stability."""

from __future__ import annotations

from collections.abc import Sequence

from alphafuse.registry.aliases import NAMES, Aliases
from alphafuse.registry.version import Version, parent_of
from monitoring.dashboard.components import Part, link_to, listing_page, section, soft, table, toned_badge
from monitoring.dashboard.run_poller import FoundRegistry
from monitoring.presentation.formats import duration
from monitoring.run_log.reader import Run

TONES = {"production": "good", "candidate": "warm", "previous": "calm"}
METRICS = ("ndcg@10", "hr@10")
HEAD = (
    "version", "alias", *(metric.upper() for metric in METRICS), "items", "new", "removed", "training", "parent",
    "null space", "overlap@10", "created", "workspace",
)  # fmt: skip
WORDS = (1, 8, 9, 11, 12)
"""Columns that hold words."""


def skeleton() -> Part:
    """The frame of the page."""
    return listing_page("versions", "Versions")


def listing(registries: Sequence[FoundRegistry], runs: Sequence[Run]) -> Part:
    """A section for each registry.

    Args:
        runs: all runs, those that are versions among them, to which the versions link.
    """
    if not registries:
        return soft("There is no registry here: `alphafuse models add WORKSPACE --registry FOLDER` makes one.")
    by_uri = {run.uri: run for run in runs}
    return [_section(order, found, by_uri) for order, found in enumerate(registries)]


def _section(order: int, found: FoundRegistry, runs: dict[str, Run]) -> Part:
    kept = [version for version in reversed(found.versions) if version.id not in found.aliases.removed]
    said = [f"{len(kept)} versions"]
    if gone := len(found.versions) - len(kept):
        said.append(f"{gone} removed")
    if found.aliases.change:
        said.append(f"last change: {found.aliases.change}, {found.aliases.time[:16].replace('T', ' ')} UTC")
    rows = [_row(version, found, runs) for version in kept]
    shown = table(HEAD, rows, f"Versions in {found.key}", texts=WORDS)
    return section(found.key, f"versions-{order}", soft(", ".join(said)), shown)


def _row(version: Version, found: FoundRegistry, runs: dict[str, Run]) -> list[Part]:
    warm, drift, stability = version.warm_start or {}, version.drift or {}, version.stability or {}
    run = runs.get(version.workspace)
    return [
        version.id,
        _badge(found.aliases, version.id),
        *(f"{version.metrics[metric]:.4f}" if metric in version.metrics else "–" for metric in METRICS),
        f"{version.items:,}",
        *(f"{warm[name]:,}" if name in warm else "–" for name in ("new", "removed")),
        duration(version.train_seconds),
        parent_of(version, found.versions),
        str(drift.get("kind", "–")),
        f"{stability['overlap']:.3f}" if "overlap" in stability else "–",
        version.created[:16].replace("T", " "),
        version.workspace if run is None else link_to(run),
    ]


def _badge(aliases: Aliases, version_id: str) -> Part:
    names = [name for name in NAMES if getattr(aliases, name) == version_id]
    return [toned_badge(name, TONES[name]) for name in names] or "–"
