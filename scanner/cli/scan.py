"""kubeposture scan: read and judge. Providers are imported when a command runs, so that --help stays quick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from scanner.cli import logs
from scanner.cli.judge import Scan, settings_from
from scanner.cli.options import ClusterScope, Judging, Logging, Reporting, Running, takes_options
from scanner.collect import Task

app = typer.Typer(help="Read clusters or manifests and judge them.", no_args_is_help=True)

Paths = Annotated[list[str], typer.Argument(help="Directories, files, or - for standard input.", show_default=False)]
DefaultNamespace = Annotated[
    str | None,
    typer.Option("-n", "--namespace", help="Namespace of objects that name none.", rich_help_panel="Target"),
]


@app.command("manifests")
@takes_options
def scan_manifests(
    paths: Paths, judging: Judging, reporting: Reporting, logging: Logging, namespace: DefaultNamespace = None
) -> None:
    """Judge manifests: YAML or JSON files, directories, `kubectl get -o json` dumps."""
    from scanner.cli.targets import manifest_task

    scan = Scan(*settings_from(judging), reporting)
    judge_tasks([manifest_task(paths, namespace)], scan, logging)


@app.command("kubeconfig")
@takes_options
def scan_kubeconfig(
    scope: ClusterScope, judging: Judging, reporting: Reporting, running: Running, logging: Logging
) -> None:
    """Judge live clusters of a kubeconfig, or the one that this runs in."""
    from scanner.cli.targets import ClusterTarget, kubeconfig_tasks

    settings, config = settings_from(judging)
    tasks = kubeconfig_tasks(ClusterTarget(settings.kinds(), scope, running, settings.cluster_ids))
    judge_tasks(tasks, Scan(settings, config, reporting), logging, running.concurrency)


def judge_tasks(tasks: Sequence[Task], scan: Scan, logging: Logging, concurrency: int = 1) -> None:
    """Run the tasks, judge what they read, report, and exit."""
    logs.set_up(logging.verbose, logging.log_format)
    raise typer.Exit(scan.run(tasks, concurrency, quiet=logging.quiet))
