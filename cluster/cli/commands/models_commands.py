"""The commands `alphafuse models …`: versions of a model in a registry."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Annotated

import typer

from cluster.cli.arguments import reported
from monitoring.terminal.safe_text import echo

models_app = typer.Typer(no_args_is_help=True, help="Versions of a model: which one serves, and which came before.")

TARGETS = 20_000
RegistryOption = Annotated[
    str,
    typer.Option(
        "--registry",
        metavar="URI",
        envvar="ALPHAFUSE_REGISTRY",
        help="Folder or URI of the registry, as in the setting `registry`.",
    ),
]
TestTargets = Annotated[
    int, typer.Option(min=1, help="Test targets to compare by, at least; whole users, drawn by id.")
]
VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="Id, such as v0007, or alias.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(models_app, name="models")


@models_app.command("add")
def add(
    workspace: Annotated[str, typer.Argument(metavar="WORKSPACE", help="Workspace of a finished run.")],
    registry: RegistryOption,
) -> None:
    """Add a finished workspace as a version, and make it the candidate; `run` and `update` do so by themselves where
    the setting `registry` is given."""
    with reported():
        from alphafuse.registry.version_registry import Registry
        from alphafuse.storage.workspace import Workspace

        echo(f"{Registry(registry).add(Workspace(workspace)).id} {workspace}")


@models_app.command("list")
def list_versions(registry: RegistryOption) -> None:
    """List all versions, the newest last."""
    with reported():
        from alphafuse.registry.version_registry import Registry
        from cluster.cli.version_tables import print_versions

        print_versions(Registry(registry))


@models_app.command()
def show(version: VersionName, registry: RegistryOption) -> None:
    """Show everything about one version."""
    with reported():
        from alphafuse.registry.version_registry import Registry
        from cluster.cli.version_tables import print_version

        print_version(Registry(registry), version)


@models_app.command()
def path(version: VersionName, registry: RegistryOption) -> None:
    """Print the workspace of a version, for scripts."""
    with reported():
        from alphafuse.registry.version_registry import Registry

        echo(Registry(registry).kept(version).workspace)


@models_app.command()
def compare(
    registry: RegistryOption,
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="Id or alias.")] = "candidate",
    other: Annotated[str, typer.Option("--with", metavar="VERSION", help="Id or alias.")] = "production",
    targets: TestTargets = TARGETS,
) -> None:
    """Compare two versions on the test targets of the first one: quality, and how far lists and scores have moved."""
    with reported():
        from alphafuse.registry.version_registry import Registry
        from alphafuse.version_comparison import compare_versions
        from cluster.cli.version_tables import print_comparison

        place = Registry(registry)
        print_comparison(compare_versions(place.kept(other), place.kept(version), targets))


@models_app.command()
def promote(
    registry: RegistryOption,
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="Id or alias.")] = "candidate",
    metric: Annotated[str, typer.Option(metavar="NAME", help="ndcg@10, hr@10 or mrr@10.")] = "ndcg@10",
    max_drop: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of the metric that may be lost against production.")
    ] = 0.02,
    targets: TestTargets = TARGETS,
) -> None:
    """Let a version serve, if it is not worse than the one in production on the same test targets."""
    with reported():
        from alphafuse.registry.version_registry import Registry

        place = Registry(registry)
        chosen, production = place.kept(version), place.alias("production")
        if production is not None and production != chosen.id:
            from alphafuse.version_comparison import METRICS, compare_versions, require_no_drop
            from cluster.cli.version_tables import print_comparison

            if metric not in METRICS:
                raise typer.BadParameter(f"choose one of {', '.join(METRICS)}")
            comparison = compare_versions(place.version(production), chosen, targets)
            print_comparison(comparison)
            require_no_drop(comparison, metric, max_drop)
        place.promote(chosen.id, production)
        echo(f"{chosen.id} serves")


@models_app.command()
def rollback(registry: RegistryOption) -> None:
    """Let the previous version serve again, at once."""
    with reported():
        from alphafuse.registry.version_registry import Registry

        echo(f"{Registry(registry).rollback().production} serves")


@models_app.command()
def metrics(
    registry: RegistryOption,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 9481,
) -> None:
    """Serve the age, size, drift and cost of the versions that have an alias to Prometheus."""
    with reported():
        from alphafuse.registry.version_registry import Registry
        from monitoring.metrics.registry_exporter import serve

        with serve(Registry(registry), host, port) as address, suppress(KeyboardInterrupt):
            echo(f"http://{address}/metrics")
            signal.pause()


@models_app.command()
def gc(
    registry: RegistryOption,
    keep: Annotated[int, typer.Option(min=1, help="Number of the newest versions that stay.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Delete the workspaces of old versions that neither an alias nor another workspace needs."""
    with reported():
        from alphafuse.registry.removal import remove_versions
        from alphafuse.registry.version_registry import Registry
        from cluster.cli.version_tables import print_removals
        from monitoring.run_log.heartbeat import only_owner

        print_removals(remove_versions(Registry(registry), keep, dry_run, only_owner), dry_run)
