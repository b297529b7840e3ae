"""The commands that deal with clusters: `submit`, `jobs`, `logs`, `stop`, `status`, `local up` and `local down`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from alphafuse.stages import REPORT, find_stage, needed_stages, require_among
from cluster.cli.arguments import ConfigFile, Overrides, read_config, reported
from monitoring.terminal.safe_text import echo

local_app = typer.Typer(no_args_is_help=True, help="A Ray cluster on this machine, for trying things out.")

Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="URL of the cluster's dashboard: http://127.0.0.1:8265. Default: the cluster of `alphafuse local up`.",
    ),
]
FAILED = ("failed", "lost")
"""States of a run that has ended by itself before it was finished."""
Job = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, as `submit` and `jobs` print it.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (submit, jobs, logs, stop, status):
        app.command()(command)
    app.add_typer(local_app, name="local")


@local_app.command()
def up(
    workers: Annotated[int, typer.Option(min=1, help="Nodes besides the head.")] = 2,
    cpus_per_node: Annotated[
        int, typer.Option(min=1, help="Logical CPUs of each worker, which may exceed those of the machine.")
    ] = 1,
) -> None:
    """Start a head and some workers on this machine, each as a node of its own."""
    with reported():
        from cluster.launch import local_cluster as local

        cluster = local.up(workers, cpus_per_node)
        echo(f"a head and {workers} workers with {cpus_per_node} CPUs each, dashboard {cluster.dashboard}")
        echo("try     alphafuse submit CONFIG\n        alphafuse local down")


@local_app.command()
def down() -> None:
    """Stop the cluster that `up` started, and everything that runs on it."""
    with reported():
        from cluster.launch import local_cluster as local

        cluster = local.down()
        echo("no local cluster is running" if cluster is None else f"stopped {cluster.dashboard}")


def submit(
    config: ConfigFile,
    overrides: Overrides = None,
    address: Address = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    redo: Annotated[str | None, typer.Option(metavar="STAGE", help="Make this stage and all later ones again.")] = None,
    with_code: Annotated[
        bool, typer.Option("--with-code", help="Run the code of this installation instead of that of the cluster.")
    ] = False,
    grows: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Launch file of the cluster, from which its largest size is read."),
    ] = None,
    runtime_env: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML with more of Ray's runtime environment: env_vars, pip.")
    ] = None,
    driver_memory: Annotated[
        float | None,
        typer.Option(metavar="GIB", min=0.1, help="Memory reserved for the process that starts the stages."),
    ] = None,
    driver_resource: Annotated[
        list[str] | None, typer.Option(metavar="NAME=AMOUNT", help="Custom resource of that process's machine.")
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Label that is stored with the job and shown by Ray.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show the output of the job until it ends.")] = False,
) -> None:
    """Run the stages as a job on a cluster; finished stages are skipped."""
    with reported():
        from alphafuse.config.loading import read_tree
        from cluster.remote.jobs_api import connect
        from cluster.remote.submission import Driver
        from cluster.remote.submission import submit as submit_run

        # The workspace is not opened here, since only the cluster needs access to it.
        configuration = read_config(config, overrides)
        if grows is not None:
            from cluster.remote.node_groups import read_node_groups

            ray = configuration.ray.model_copy(update={"node_groups": read_node_groups(grows)})
            configuration = configuration.model_copy(update={"ray": ray})
        stages = needed_stages(configuration, find_stage(until or REPORT.name))
        again = find_stage(redo) if redo else None
        require_among(stages, again)
        driver = Driver(
            memory=None if driver_memory is None else int(driver_memory * 2**30),
            resources={name: _amount(name, value) for name, value in _pairs("--driver-resource", driver_resource)},
            runtime_env={} if runtime_env is None else read_tree(runtime_env),
            with_code=with_code,
        )
        connection = connect(address)
        if connection.sends_token_unencrypted():
            message = f"! the token goes to {connection.url} unencrypted: use an SSH tunnel, or https"
            echo(message, "yellow", err=True)
        labels = dict(_pairs("--metadata", metadata))
        job = submit_run(connection, configuration, config.stem, stages, again, driver, labels)
        echo(f"submitted {job} to {connection.url}")
        if follow:
            _follow(connection, job)
        else:
            echo(f"try     alphafuse logs -f {job}\n        alphafuse status {job}\n        alphafuse stop {job}")


def jobs(address: Address = None) -> None:
    """List the jobs of a cluster."""
    with reported():
        from cluster.cli.job_tables import print_jobs
        from cluster.remote.jobs_api import connect, translate_errors

        connection = connect(address)
        with translate_errors(connection.url):
            found = connection.client.list_jobs()
        print_jobs(found)


def logs(
    job: Job,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job ends.")] = False,
) -> None:
    """Show the output of a job."""
    with reported():
        from cluster.remote.jobs_api import connect, translate_errors

        connection = connect(address)
        if follow:
            _follow(connection, job)
            return
        with translate_errors(connection.url):
            text = connection.client.get_job_logs(job)
        echo(text, nl=False)


def stop(job: Job, address: Address = None) -> None:
    """Stop a job. Finished work is kept: submitted again, the run continues from there."""
    with reported():
        from cluster.remote.following import stop_job
        from cluster.remote.jobs_api import connect

        connection = connect(address)
        echo(f"{job} is {stop_job(connection, job).value.lower()}")


def status(
    what: Annotated[str, typer.Argument(metavar="JOB|CONFIG", help="A job, or the configuration of a run.")],
    overrides: Overrides = None,
    address: Address = None,
) -> None:
    """Show the progress of a run, stage by stage, and the time it will take; exits with 1 if the run has failed."""
    with reported():
        from cluster.cli.run_tables import print_run, read_run

        if Path(what).is_file():
            workspace = read_config(Path(what), overrides).workspace
            _exit_if(print_run(read_run(workspace)) in FAILED)
            return
        from ray.job_submission import JobStatus

        from alphafuse.errors import WorkspaceError
        from cluster.cli.job_tables import print_job
        from cluster.remote.following import workspace_of
        from cluster.remote.jobs_api import connect

        job, uri = workspace_of(connect(address), what)
        print_job(job)
        try:
            print_run(read_run(uri))
        except WorkspaceError as error:
            if JobStatus(job.status).is_terminal():
                raise
            echo(str(error))
        _exit_if(JobStatus(job.status) is JobStatus.FAILED)  # the workspace may tell of an earlier job


def _exit_if(failed: bool) -> None:
    if failed:
        raise typer.Exit(1)


def _follow(connection: Any, job: str) -> None:
    """Show the log of a job until the job ends; if the job failed, the command exits with 1."""
    from cluster.remote.following import follow as follow_job

    status = follow_job(connection, job, typer.get_text_stream("stdout"))
    if status.value != "SUCCEEDED":
        echo(f"{job} {status.value.lower()}", "red", err=True)
        raise typer.Exit(1)


def _pairs(option: str, values: list[str] | None) -> list[tuple[str, str]]:
    pairs = [value.partition("=") for value in values or ()]
    for (name, equals, amount), value in zip(pairs, values or (), strict=True):
        if not (name and equals and amount):
            raise typer.BadParameter(f"{value!r} is not of the form NAME=VALUE", param_hint=option)
    return [(name, amount) for name, _, amount in pairs]


def _amount(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise typer.BadParameter(f"{name}={value}: not a number", param_hint="--driver-resource") from None
