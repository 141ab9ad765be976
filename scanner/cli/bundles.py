"""kubeposture collect and evaluate: read here, judge there."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scanner.cli.options import (
    AwsScope,
    AzureScope,
    Contexts,
    Discovery,
    GcpScope,
    ImageSources,
    Judging,
    Logging,
    Namespaces,
    Reporting,
    Running,
    takes_options,
)
from scanner.cli.scan import CLOUD_CONCURRENCY, Chosen, DefaultNamespace, Paths, cloud_target, judge_tasks
from scanner.config import ConfigError

if TYPE_CHECKING:
    from scanner.cli.scan import Start
    from scanner.collect import Task

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
    output: BundleFile,
    contexts: Contexts,
    namespaces: Namespaces,
    judging: Judging,
    sources: ImageSources,
    running: Running,
    logging: Logging,
) -> None:
    """Collect live clusters. Options that select checks decide which kinds are read."""
    from scanner.cli.image_sources import source_tasks
    from scanner.cli.settings import settings_from
    from scanner.cli.targets import Inside, kubeconfig_tasks

    settings = settings_from(judging)[0].only()
    agents = True  # beside a cloud's bundle
    inside = Inside(settings.kinds(), namespaces, running, settings.cluster_ids, agents, settings.needs_scans)
    tasks = [*kubeconfig_tasks(contexts, inside), *source_tasks(sources, settings, running)]
    _write(tasks, output, logging, running.concurrency or 4)


@collect.command("aks")
@takes_options
def collect_aks(
    output: BundleFile,
    azure: AzureScope,
    discovery: Discovery,
    namespaces: Namespaces,
    judging: Judging,
    sources: ImageSources,
    running: Running,
    logging: Logging,
) -> None:
    """Collect what Azure says of clusters, and what runs inside them."""
    from scanner.cli.aks import aks_tasks

    chosen = (discovery, namespaces, judging, running, sources)
    _collect_cloud("azure", lambda asked: aks_tasks(azure, asked), chosen, output, logging)


@collect.command("eks")
@takes_options
def collect_eks(
    output: BundleFile,
    aws: AwsScope,
    discovery: Discovery,
    namespaces: Namespaces,
    judging: Judging,
    sources: ImageSources,
    running: Running,
    logging: Logging,
) -> None:
    """Collect what AWS says of clusters, and what runs inside them."""
    from scanner.cli.eks import eks_tasks

    chosen = (discovery, namespaces, judging, running, sources)
    _collect_cloud("aws", lambda asked: eks_tasks(aws, asked), chosen, output, logging)


@collect.command("gke")
@takes_options
def collect_gke(
    output: BundleFile,
    gcp: GcpScope,
    discovery: Discovery,
    namespaces: Namespaces,
    judging: Judging,
    sources: ImageSources,
    running: Running,
    logging: Logging,
) -> None:
    """Collect what Google Cloud says of clusters, and what runs inside them."""
    from scanner.cli.gke import gke_tasks

    chosen = (discovery, namespaces, judging, running, sources)
    _collect_cloud("gcp", lambda asked: gke_tasks(gcp, asked), chosen, output, logging)


def _collect_cloud(provider: str, start: Start, chosen: Chosen, output: Path, logging: Logging) -> None:
    from scanner.cli.image_sources import source_tasks

    asked, _ = cloud_target(provider, chosen)
    *_, sources = chosen
    also = source_tasks(sources, asked.settings, asked.running)
    with start(asked) as tasks:
        _write([*tasks, *also], output, logging, asked.running.concurrency or CLOUD_CONCURRENCY)


def _write(tasks: Sequence[Task], output: Path, logging: Logging, concurrency: int = 1) -> None:
    from scanner import bundle
    from scanner import collect as collecting
    from scanner.cli import logs
    from scanner.cli.ending import EXIT
    from scanner.cli.progress import progress

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
    sources: ImageSources,
    reporting: Reporting,
    logging: Logging,
) -> None:
    """Judge bundles: the same report as from the scan itself."""
    from scanner.cli.image_sources import index_of, source_tasks
    from scanner.cli.judge import Scan
    from scanner.cli.settings import settings_from
    from scanner.cli.targets import bundle_tasks

    for path in bundles:
        if not path.is_file():
            raise ConfigError(f"{path}: no such bundle")
    scan = Scan(*settings_from(judging), reporting, index_of(sources, Running()))
    kinds = scan.settings.kinds() or scan.settings.cloud_kinds()
    tasks = [*bundle_tasks(bundles, kinds), *source_tasks(sources, scan.settings, Running())]
    judge_tasks(tasks, scan, logging)
