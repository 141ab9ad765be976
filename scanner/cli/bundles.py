"""kubeposture collect and evaluate: read here, judge there."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from scanner import bundle
from scanner import collect as collecting
from scanner.cli import logs
from scanner.cli.judge import EXIT, Scan, settings_from
from scanner.cli.options import ClusterScope, Judging, Logging, Reporting, Running, takes_options
from scanner.cli.progress import progress
from scanner.cli.scan import DefaultNamespace, Paths, judge_tasks
from scanner.collect import Task
from scanner.config import ConfigError

collect = typer.Typer(help="Read without judging, into a bundle for `evaluate`.", no_args_is_help=True)

BundleFile = Annotated[Path, typer.Option("-o", "--output", help="The bundle to write.", show_default=False)]


@collect.command("manifests")
@takes_options
def collect_manifests(paths: Paths, output: BundleFile, logging: Logging, namespace: DefaultNamespace = None) -> None:
    """Collect manifests: whatever any check reads of them."""
    from scanner.cli.targets import manifest_task

    _write([manifest_task(paths, namespace)], output, logging)


@collect.command("kubeconfig")
@takes_options
def collect_kubeconfig(
    output: BundleFile, scope: ClusterScope, judging: Judging, running: Running, logging: Logging
) -> None:
    """Collect live clusters. Options that select checks decide which kinds are read."""
    from scanner.cli.targets import ClusterTarget, kubeconfig_tasks

    settings, _ = settings_from(judging)
    tasks = kubeconfig_tasks(ClusterTarget(settings.kinds(), scope, running, settings.cluster_ids))
    _write(tasks, output, logging, running.concurrency)


def _write(tasks: Sequence[Task], output: Path, logging: Logging, concurrency: int = 1) -> None:
    logs.set_up(logging.verbose, logging.log_format)
    read = gaps = estates = 0
    with (
        bundle.written(output) as add,
        progress(logging.quiet) as show,
        contextlib.closing(collecting.run(tasks, concurrency, show)) as readings,
    ):
        for reading in readings:
            add(reading.estate)
            estates += 1
            read += reading.estate.inventory.counts.read
            gaps += 0 if reading.estate.inventory.complete else 1
    incomplete = f", {gaps} of them incomplete" if gaps else ""
    typer.echo(f"{output}: {read:,} objects of {estates} targets{incomplete}; judge them with: "
               f"kubeposture evaluate {output}", err=True)  # fmt: skip
    raise typer.Exit(EXIT["nothing_read"] if not read else EXIT["incomplete"] if gaps else 0)


@takes_options
def evaluate(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles that `collect` wrote.", show_default=False)],
    judging: Judging,
    reporting: Reporting,
    logging: Logging,
) -> None:
    """Judge bundles: the same report as from the scan itself."""
    from scanner.cli.targets import bundle_tasks

    for path in bundles:
        if not path.is_file():
            raise ConfigError(f"{path}: no such bundle")
    scan = Scan(*settings_from(judging), reporting)
    judge_tasks(bundle_tasks(bundles, scan.settings.kinds()), scan, logging)
