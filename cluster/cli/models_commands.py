"""The commands `alphafuse models …`: versions of a model in a registry."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli.arguments import reported
from monitoring.terminal.safe_text import echo

models_app = typer.Typer(no_args_is_help=True, help="Versions of a model: which one serves, and which came before.")

RegistryOption = Annotated[
    str,
    typer.Option(
        "--registry",
        metavar="URI",
        envvar="ALPHAFUSE_REGISTRY",
        help="Folder or URI of the registry, as in the setting `registry`.",
    ),
]
VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="Id, such as v0007, or alias.")]


@models_app.command("add")
def add(
    workspace: Annotated[str, typer.Argument(metavar="WORKSPACE", help="Workspace of a finished run.")],
    registry: RegistryOption,
) -> None:
    """Add a finished workspace as a version, and make it the candidate; `run` and `update` do so by themselves where
    the setting `registry` is given."""
    with reported():
        from alphafuse.registry.registry import Registry
        from alphafuse.storage.workspace import Workspace

        echo(f"{Registry(registry).add(Workspace(workspace)).id} {workspace}")


@models_app.command("list")
def list_versions(registry: RegistryOption) -> None:
    """List all versions, the newest last."""
    with reported():
        from alphafuse.registry.registry import Registry
        from cluster.cli.version_tables import print_versions

        print_versions(Registry(registry))


@models_app.command()
def show(version: VersionName, registry: RegistryOption) -> None:
    """Show everything about one version."""
    with reported():
        from alphafuse.registry.registry import Registry
        from cluster.cli.version_tables import print_version

        print_version(Registry(registry), version)
