"""kubeposture scan all: the targets of the configuration file, side by side into one report."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from scanner.cli.image_sources import source_tasks
from scanner.cli.options import (
    ARM_ENDPOINT,
    GCP_ENDPOINTS,
    AwsScope,
    AzureCloud,
    AzureScope,
    Contexts,
    Discovery,
    GcpScope,
    ImageSources,
    Namespaces,
    Planes,
    Running,
)
from scanner.cli.scan import on_planes
from scanner.cli.targets import Inside, bundle_tasks, kubeconfig_tasks, manifest_task
from scanner.collect import Task
from scanner.config import (
    AksTarget,
    Config,
    ConfigError,
    EksTarget,
    GkeTarget,
    KubeconfigTarget,
    Settings,
    Target,
)


@contextlib.contextmanager
def all_tasks(config: Config, settings: Settings, running: Running) -> Iterator[list[Task]]:
    """The tasks of every target. Raises ConfigError where there is none, or one cannot be used."""
    if not config.targets:
        raise ConfigError("`scan all` reads the targets of the configuration file, and it names none: add `targets:`")
    with contextlib.ExitStack() as opened:
        tasks = [task for target in config.targets for task in _tasks(target, settings, running, opened)]
        if not tasks:
            raise ConfigError("no selected check is about any of the targets: loosen --check, --ref and the like")
        yield tasks


def _tasks(target: Target, settings: Settings, running: Running, opened: contextlib.ExitStack) -> list[Task]:
    """None where no selected check is about the target."""
    if target.aks:
        return _aks(target.aks, settings, running, opened)
    if target.eks:
        return _eks(target.eks, settings, running, opened)
    if target.gke:
        return _gke(target.gke, settings, running, opened)
    if target.bundles:
        return bundle_tasks(
            [_existing(path) for path in target.bundles.paths], settings.kinds() or settings.cloud_kinds()
        )
    if target.kubeconfig and settings.kinds():
        wanted = target.kubeconfig
        kubeconfig = Path(wanted.kubeconfig) if wanted.kubeconfig else None
        return kubeconfig_tasks(Contexts(list(wanted.contexts), kubeconfig), _inside(wanted, settings, running))
    if target.vulnerabilities or target.jfrog:
        paths = list(target.vulnerabilities.paths) if target.vulnerabilities else []
        return source_tasks(ImageSources(paths, target.jfrog.url if target.jfrog else None), settings, running)
    if target.manifests and settings.kinds():
        return [manifest_task(list(target.manifests.paths), target.manifests.namespace)]
    return []


def _existing(path: str) -> Path:
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such bundle")
    return Path(path)


def _inside(wanted: KubeconfigTarget, settings: Settings, running: Running) -> Inside:
    namespaces = Namespaces(list(wanted.namespaces), list(wanted.exclude_namespaces))
    return Inside(
        settings.kinds(), namespaces, running, settings.cluster_ids, settings.needs_agents, settings.needs_scans
    )


def of_cloud(
    target: AksTarget | EksTarget | GkeTarget, provider: str, settings: Settings
) -> tuple[Settings, Discovery] | None:
    """What is judged of a cloud and of which clusters; None where no selected check is about that."""
    planes = Planes(target.planes)
    outside = planes is not Planes.DATA
    beside = settings.asked_of_azure() if outside and provider == "azure" else frozenset()
    if settings.about(cloud=provider, outside=outside, inside=planes is not Planes.CONTROL):
        chosen = on_planes(settings, planes, provider)
    elif beside:
        chosen = replace(settings, plans=())
    else:
        return None
    return replace(chosen, beside=beside), Discovery(list(target.clusters), list(target.tags), planes)


def _aks(aks: AksTarget, settings: Settings, running: Running, opened: contextlib.ExitStack) -> list[Task]:
    from scanner.cli import aks as azure
    from scanner.cli.discovery import Asked

    chosen = of_cloud(aks, "azure", settings)
    if not chosen:
        return []
    endpoint = aks.arm_endpoint or os.environ.get(ARM_ENDPOINT)
    scope = AzureScope(list(aks.subscriptions), aks.tenant, AzureCloud(aks.cloud), endpoint, aks.allow_local_account)
    namespaces = Namespaces(list(aks.namespaces), list(aks.exclude_namespaces))
    return opened.enter_context(azure.aks_tasks(scope, Asked(*chosen, namespaces, running)))


def _eks(eks: EksTarget, settings: Settings, running: Running, opened: contextlib.ExitStack) -> list[Task]:
    from scanner.cli import eks as aws
    from scanner.cli.discovery import Asked

    chosen = of_cloud(eks, "aws", settings)
    if not chosen:
        return []
    scope = AwsScope(eks.aws_profile, list(eks.role_arns), eks.organization, eks.external_id, list(eks.regions))
    namespaces = Namespaces(list(eks.namespaces), list(eks.exclude_namespaces))
    return opened.enter_context(aws.eks_tasks(scope, Asked(*chosen, namespaces, running)))


def _gke(gke: GkeTarget, settings: Settings, running: Running, opened: contextlib.ExitStack) -> list[Task]:
    from scanner.cli import gke as google
    from scanner.cli.discovery import Asked

    chosen = of_cloud(gke, "gcp", settings)
    if not chosen:
        return []
    endpoints = list(gke.gcp_endpoints) or os.environ.get(GCP_ENDPOINTS, "").split()
    scope = GcpScope(list(gke.projects), list(gke.organizations), list(gke.folders), gke.impersonate, endpoints)
    namespaces = Namespaces(list(gke.namespaces), list(gke.exclude_namespaces))
    return opened.enter_context(google.gke_tasks(scope, Asked(*chosen, namespaces, running)))
