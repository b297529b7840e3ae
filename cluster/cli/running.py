"""Runs stages on the command line, and shows progress and results."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence

import numpy as np
from rich.table import Table

from alphafuse.config import Config
from alphafuse.data.catalog_lookup import item_names
from alphafuse.data.popularity import load_popularity
from alphafuse.evaluation.ranking_metrics import measured_cutoffs
from alphafuse.inputs import check_inputs
from alphafuse.registry.aliases import NAMES
from alphafuse.registry.version_registry import Registry
from alphafuse.stages import Stage, require_among
from alphafuse.storage.workspace import Workspace
from cluster.cli.arguments import program
from cluster.cli.run_log import redirect_output
from monitoring.terminal.run_console import RunConsole
from monitoring.terminal.safe_text import SafeConsole, echo, one_line

EXAMPLES = 100
"""Number of popular items among which two are looked for that can be typed."""
MAX_TYPED = 80


def run_with_progress(
    settings: Config, workspace: Workspace, stages: Sequence[Stage], again: Stage | None = None, quiet: bool = False
) -> None:
    """Run stages as `jobs.pipeline.run_stages` does, with progress on standard output unless `quiet`. What they read is
    checked before anything is started or written, if they run on this machine; on a cluster, the stages check it."""
    require_among(stages, again)
    if settings.ray.address is None:
        check_inputs(settings, stages)
    monitor = settings.train.monitor
    with redirect_output(workspace.folder) as output, RunConsole(output, monitor, False, quiet) as console:
        from jobs.pipeline import run_stages

        run_stages(settings, workspace, stages, console, again)


def print_results(workspace: Workspace, registry: str | None = None) -> bool:
    """Print the metrics, the path of the report, and the version in a registry if it has an alias; returns False if
    there is no evaluation."""
    console = SafeConsole(file=sys.stdout)
    evaluation = workspace.artifact("evaluation")
    if evaluation.manifest() is None:
        return False
    result = json.loads(evaluation.read_file("metrics.json"))
    title = (
        f"{result['split']} · {result['queries']:,} targets · {result['num_items']:,} items · {result['similarity']} · "
        f"seen items left {'out' if result['exclude_seen'] else 'in'}"
    )
    table = Table(box=None)
    table.add_column("")
    cutoffs = measured_cutoffs(result["overall"])
    for cutoff in cutoffs:
        table.add_column(f"@{cutoff}", justify="right")
    for name in ("hr", "ndcg", "mrr"):
        table.add_row(name.upper(), *(f"{result['overall'][f'{name}@{k}']:.4f}" for k in cutoffs))
    # Evaluations of before have no baselines.
    others = {f"NDCG of {name.replace('_', ' ')}": found for name, found in result.get("baselines", {}).items()}
    if "shuffled_histories" in result:
        others["NDCG after shuffled histories"] = result["shuffled_histories"]
    for name, found in others.items():
        table.add_row(name, *(f"{found['overall'][f'ndcg@{k}']:.4f}" for k in cutoffs), style="dim")
    console.print(f"\n{title}", markup=False, soft_wrap=True)
    console.print(table)
    if workspace.artifact("report").manifest() is not None:
        console.print(f"\nreport  {workspace.folder.uri}/report/index.html", markup=False, soft_wrap=True)
    if registry is not None:
        named = {alias: Registry(registry).alias(alias) for alias in NAMES}
        versions = {alias: Registry(registry).version(name) for alias, name in named.items() if name is not None}
        own = {alias: each.id for alias, each in versions.items() if each.workspace == workspace.folder.uri}
        console.print("".join(f"\nversion {name} ({alias})" for alias, name in own.items()), markup=False)
    return True


def print_next(arguments: Sequence[str], workspace: Workspace) -> None:
    """Print commands to try after a run, with the same arguments, as a shell takes them."""
    again = ["--redo", "train", "--set", "train.learning_rate=1e-3"]
    echo("try     " + shlex.join([program(), "recommend", *arguments, "--history", _example(workspace)]))
    echo("        " + shlex.join([program(), "run", *arguments, *again]))


def _example(workspace: Workspace) -> str:
    """Titles of two popular items, as an example of a history; the id of an item whose title cannot be typed."""
    popular = np.argsort(-load_popularity(workspace), kind="stable")[:EXAMPLES]
    table = item_names(workspace.artifact("catalog"), popular)
    names = dict(zip(table["item_index"].to_pylist(), table.select(["title", "item_id"]).to_pylist(), strict=True))
    shown: dict[str, str] = {}
    for item in popular.tolist():
        typed = [name for name in names[item].values() if name and one_line(name) == name and len(name) <= MAX_TYPED]
        if typed:
            shown.setdefault(typed[0].strip().lower(), typed[0])
    return ",".join(list(shown.values())[:2]) if len(shown) > 1 else "TITLE,TITLE"
