"""Prints versions of a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from alphafuse.registry.aliases import NAMES, Aliases
from alphafuse.registry.version import Version, parent_of
from alphafuse.registry.version_registry import Registry
from monitoring.terminal.safe_text import SafeConsole, echo, one_line

if TYPE_CHECKING:  # which import torch
    from alphafuse.registry.removal import Removal
    from alphafuse.version_comparison import VersionComparison

METRIC = "ndcg@10"
"""Metric in the list, whose lines are to fit on a terminal."""


def print_versions(registry: Registry) -> None:
    """Print one line per version, oldest first."""
    aliases, versions = registry.aliases(), registry.versions()
    if not versions:
        echo(f"{registry.folder.uri} has no versions; `alphafuse models add WORKSPACE` adds one")
        return
    table = Table("version", "", METRIC, "items", "parent", "null space", "created", box=None)
    for version in versions:
        metric = f"{version.metrics[METRIC]:.4f}" if METRIC in version.metrics else "–"
        created = version.created[:16].replace("T", " ")
        facts = [f"{version.items:,}", parent_of(version, versions), _nullspace(version), created]
        table.add_row(version.id, _state(aliases, version.id), metric, *map(one_line, facts))
    SafeConsole(file=sys.stdout).print(table, markup=False)


def print_version(registry: Registry, name: str) -> None:
    """Print all facts about a version, one in a line."""
    version, aliases = registry.version(name), registry.aliases()
    echo(f"{version.id}  {_state(aliases, version.id)}")
    for label, fact in _facts(version, registry.versions()):
        echo(f"  {label:<12} {one_line(fact)}")


def print_comparison(comparison: VersionComparison) -> None:
    """Print the metrics of both versions and how far the lists have moved."""
    before, after, stability = comparison.before.id, comparison.after.id, comparison.stability
    echo(f"{comparison.targets:,} test targets of {comparison.users:,} users")
    table = Table("", before, after, "difference", "p", box=None)
    for each in comparison.differences:
        numbers = f"{each.before:.4f}", f"{each.after:.4f}", f"{each.after - each.before:+.4f}", f"{each.p_value:.2g}"
        table.add_row(each.metric, *numbers)
    SafeConsole(file=sys.stdout).print(table, markup=False)
    overlap, correlation = f"overlap@10 {stability.overlap:.3f}", f"rank correlation {stability.rank_correlation:.3f}"
    echo(f"lists of {stability.queries:,} histories: {overlap}, {correlation}")


def print_removals(removals: Sequence[Removal], dry_run: bool) -> None:
    """Print one line for each version that is old enough to be removed."""
    for each in removals:
        fate = f"stays: {each.needed_by}" if each.needed_by else "would be removed" if dry_run else "removed"
        echo(one_line(f"{each.version.id} {fate}   {each.version.workspace}"))
    if not removals:
        echo("there is nothing to remove")


def _state(aliases: Aliases, version_id: str) -> str:
    names = ", ".join(name for name in NAMES if getattr(aliases, name) == version_id)
    return "removed" if version_id in aliases.removed else names


def _nullspace(version: Version) -> str:
    return "–" if version.drift is None else str(version.drift["kind"])


def _facts(version: Version, versions: list[Version]) -> Iterator[tuple[str, str]]:
    yield "workspace", version.workspace
    yield "export", version.export
    yield "fingerprint", version.fingerprint
    yield "created", version.created
    yield "parent", parent_of(version, versions)
    yield "code", _listed(version.code)
    yield "items", f"{version.items:,}"
    yield "training", f"{version.train_seconds:,.0f} s"
    yield "metrics", _listed(version.metrics)
    later = {"items since": version.warm_start, "drift": version.drift, "stability": version.stability}
    yield from ((label, _listed(facts)) for label, facts in later.items() if facts is not None)


def _listed(facts: dict[str, object] | dict[str, float] | dict[str, str]) -> str:
    shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in facts.items()}
    return "  ".join(f"{name} {value}" for name, value in shown.items()) or "–"
