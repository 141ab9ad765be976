"""kubeposture scan: read and judge. What does that is imported when a command runs, so that --help stays quick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from scanner.cli.options import (
    EXIT_INTERRUPTED,
    AwsScope,
    AzureScope,
    Contexts,
    Discovery,
    GcpScope,
    ImageSources,
    Judging,
    Logging,
    Namespaces,
    Planes,
    Reporting,
    Running,
    takes_options,
)

if TYPE_CHECKING:
    from scanner.cli.discovery import Asked
    from scanner.cli.judge import Scan
    from scanner.collect import Task
    from scanner.config import Config, Settings

    Start = Callable[[Asked], AbstractContextManager[list[Task]]]

CLOUD_CONCURRENCY = 16

Chosen = tuple[Discovery, Namespaces, Judging, Running, ImageSources]  # what every cloud's commands take

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
    from scanner.cli.judge import Scan
    from scanner.cli.settings import settings_from
    from scanner.cli.targets import manifest_task
    from scanner.config import ConfigError

    if reporting.emit_cves:
        raise ConfigError("--emit-cves: images are judged where they run or are stored, and manifests are neither")
    settings, config = settings_from(judging)
    judge_tasks([manifest_task(paths, namespace)], Scan(settings.only(), config, reporting), logging)


@app.command("kubeconfig")
@takes_options
def scan_kubeconfig(
    contexts: Contexts,
    namespaces: Namespaces,
    judging: Judging,
    sources: ImageSources,
    reporting: Reporting,
    running: Running,
    logging: Logging,
) -> None:
    """Judge live clusters of a kubeconfig, or the one that this runs in."""
    from scanner.cli.image_sources import index_of, source_tasks
    from scanner.cli.judge import Scan
    from scanner.cli.settings import settings_from
    from scanner.cli.targets import Inside, kubeconfig_tasks

    settings, config = settings_from(judging)
    settings = settings.only()
    inside = Inside(settings.kinds(), namespaces, running, settings.cluster_ids, scans=settings.needs_scans)
    tasks = [*kubeconfig_tasks(contexts, inside), *source_tasks(sources, settings, running)]
    scan = Scan(settings, config, reporting, index_of(sources, running))
    judge_tasks(tasks, scan, logging, running.concurrency or 4)


@app.command("aks")
@takes_options
def scan_aks(
    azure: AzureScope,
    discovery: Discovery,
    namespaces: Namespaces,
    judging: Judging,
    sources: ImageSources,
    reporting: Reporting,
    running: Running,
    logging: Logging,
) -> None:
    """Judge AKS clusters, registries, Arc connections and Defender plans of Azure subscriptions."""
    from scanner.cli.aks import aks_tasks

    chosen = (discovery, namespaces, judging, running, sources)
    _judge_cloud("azure", lambda asked: aks_tasks(azure, asked), chosen, reporting, logging)


@app.command("eks")
@takes_options
def scan_eks(
    aws: AwsScope,
    discovery: Discovery,
    namespaces: Namespaces,
    judging: Judging,
    sources: ImageSources,
    reporting: Reporting,
    running: Running,
    logging: Logging,
) -> None:
    """Judge EKS clusters and ECR repositories of AWS accounts."""
    from scanner.cli.eks import eks_tasks

    chosen = (discovery, namespaces, judging, running, sources)
    _judge_cloud("aws", lambda asked: eks_tasks(aws, asked), chosen, reporting, logging)


@app.command("gke")
@takes_options
def scan_gke(
    gcp: GcpScope,
    discovery: Discovery,
    namespaces: Namespaces,
    judging: Judging,
    sources: ImageSources,
    reporting: Reporting,
    running: Running,
    logging: Logging,
) -> None:
    """Judge GKE clusters and Artifact Registry repositories of Google Cloud projects."""
    from scanner.cli.gke import gke_tasks

    chosen = (discovery, namespaces, judging, running, sources)
    _judge_cloud("gcp", lambda asked: gke_tasks(gcp, asked), chosen, reporting, logging)


@app.command("all")
@takes_options
def scan_all(judging: Judging, sources: ImageSources, reporting: Reporting, running: Running, logging: Logging) -> None:
    """Judge every target of the configuration file, into one report."""
    from scanner.cli.everything import all_tasks
    from scanner.cli.image_sources import index_of, source_tasks
    from scanner.cli.judge import Scan
    from scanner.cli.settings import settings_from

    settings, config = settings_from(judging)
    with all_tasks(config, settings, running) as tasks:
        tasks += source_tasks(sources, settings, running)
        scan = Scan(settings, config, reporting, index_of(sources, running))
        judge_tasks(tasks, scan, logging, running.concurrency or CLOUD_CONCURRENCY)


def cloud_target(provider: str, chosen: Chosen) -> tuple[Asked, Config]:
    """What is asked of a cloud, and the configuration. Raises ConfigError if no selected check is about it."""
    from scanner.cli.discovery import Asked
    from scanner.cli.settings import settings_from

    discovery, namespaces, judging, running, _ = chosen
    settings, config = settings_from(judging)
    return Asked(on_planes(settings, discovery.planes, provider), discovery, namespaces, running), config


def _judge_cloud(provider: str, start: Start, chosen: Chosen, reporting: Reporting, logging: Logging) -> None:
    from scanner.cli.image_sources import index_of, source_tasks
    from scanner.cli.judge import Scan

    asked, config = cloud_target(provider, chosen)
    *_, sources = chosen
    scan = Scan(asked.settings, config, reporting, index_of(sources, asked.running))
    also = source_tasks(sources, asked.settings, asked.running)
    with start(asked) as tasks:
        judge_tasks([*tasks, *also], scan, logging, asked.running.concurrency or CLOUD_CONCURRENCY)


def on_planes(settings: Settings, planes: Planes, provider: str) -> Settings:
    """The checks of the planes that were asked for; raises ConfigError if none of those is selected."""
    return settings.only(cloud=provider, outside=planes is not Planes.DATA, inside=planes is not Planes.CONTROL)


def judge_tasks(tasks: Sequence[Task], scan: Scan, logging: Logging, concurrency: int = 1) -> None:
    """Run the tasks, judge what they read, report, deliver, and exit."""
    from scanner.cli import logs

    logs.set_up(logging.verbose, logging.log_format)
    code = scan.run(tasks, concurrency, quiet=logging.quiet)
    if scan.memory and code != EXIT_INTERRUPTED:
        undelivered = scan.memory.deliver(quiet=logging.quiet)
        code = undelivered if undelivered == EXIT_INTERRUPTED else code or undelivered
    raise typer.Exit(code)
