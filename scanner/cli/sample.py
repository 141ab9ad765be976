"""The sample estate of the demo: accounts of three clouds as a scan would have read them, refusals included, and what
Trivy found in some images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from providers.aws import reader as aws
from providers.aws import recording as aws_recording
from providers.azure import reader as azure
from providers.azure import recording as azure_recording
from providers.files import manifests, scans
from providers.gcp import reader as gcp
from providers.gcp import recording as gcp_recording
from scanner.azure import AksCluster, ArcCluster
from scanner.cli import aks, eks, gke
from scanner.cli.discovery import Asked, Cloud
from scanner.cli.everything import of_cloud
from scanner.cli.image_sources import PROVIDER as IMAGES
from scanner.cli.options import Namespaces, Running
from scanner.cli.targets import Look
from scanner.collect import Estate, Progress, Reading, Task
from scanner.config import AksTarget, EksTarget, GkeTarget, Settings
from scanner.inventory import Counts, Inventory
from scanner.model import PlaneState, utc_now

SAMPLE = Path(__file__).parent.parent / "demo"
CLUSTER = "demo-shop"


def demo_tasks(settings: Settings) -> list[Task]:
    """One for each cloud that a selected check is about, and one for reports of Trivy where a check is about those.
    Only of Azure's clusters is the inside asked for."""
    found = (
        _task(_azure, AksTarget(), aks.PROVIDER, AksCluster.kind, azure.PER_CLUSTER, settings),
        _task(_aws, EksTarget(planes="control"), eks.PROVIDER, aws.CLUSTERS, aws.PER_CLUSTER, settings),
        _task(_google, GkeTarget(planes="control"), gke.PROVIDER, gcp.CLUSTERS, (), settings),
    )
    reports = [Task("the sample of trivy", _trivy, frozenset(), IMAGES)] if settings.needs_scans else []
    return [*(task for task in found if task), *reports]


def _task(
    read: Callable[[Cloud], Iterator[Reading]],
    target: AksTarget | EksTarget | GkeTarget,
    provider: str,
    clusters: str,
    own: tuple[str, ...],
    settings: Settings,
) -> Task | None:
    chosen = of_cloud(target, provider, settings)
    if not chosen:
        return None
    cloud = Cloud(provider, clusters, own, Asked(*chosen, Namespaces(), Running()))

    def reading(progress: Progress) -> Iterator[Reading]:
        return read(cloud)

    return Task(f"the sample of {provider}", reading, cloud.kinds, provider)


def _azure(cloud: Cloud) -> Iterator[Reading]:
    reader = azure.Reader(azure_recording.Recording(SAMPLE / "azure" / "answers.yaml"), cloud.asked)
    inside = cloud.inside.kinds
    for subscription in reader.subscriptions().items:
        *_, found = reader.read(subscription)
        account = cloud.account(subscription.name, subscription.text("displayName").value)
        yield aks.account_reading(cloud, found, account)
        clusters: list[AksCluster | ArcCluster] = [*found.clusters.items, *found.arc.items]
        for cluster in clusters:
            counts = Counts()
            reader.complete(cluster, found, counts)
            look = _look(inside) if inside and cluster.name == CLUSTER else None
            yield aks.cluster_reading(cloud, cluster, look, counts)


def _aws(cloud: Cloud) -> Iterator[Reading]:
    account = aws_recording.Recording(SAMPLE / "aws" / "answers.yaml")
    reader = aws.Reader(cloud.asked)
    for name in reader.regions(account, account.home).items:
        *_, region = reader.read(account, name)
        yield eks.region_reading(cloud, region, closed=False)
        for cluster in region.clusters.items:
            counts = Counts()
            reader.complete(cluster, region, counts)
            yield cloud.reading(cluster, None, counts, version=cluster.text("version").value)


def _google(cloud: Cloud) -> Iterator[Reading]:
    session = gcp_recording.Recording(SAMPLE / "gcp" / "answers.yaml")
    reader = gcp.Reader(session, cloud.asked)
    for id in session.projects:
        *_, project = reader.read(gcp.Project(id))
        yield gke.project_reading(cloud, project)
        for cluster in project.clusters.items:
            yield gke.cluster_reading(cloud, cluster, project.ways[cluster.id], None)


def _trivy(progress: Progress) -> Iterator[Reading]:
    """Its reports, as if they were of yesterday whenever the demo runs: old ones would prove nothing."""
    for found in scans.read([str(SAMPLE / "images")], progress):
        for scan in found.scans:
            scan.scanned_at = utc_now() - timedelta(days=1)
        yield Reading(Estate("reports of trivy", Inventory(kinds=[]), scans=found))


def _look(kinds: frozenset[str]) -> Look:
    """The inside of the cluster, with one list refused."""
    inventory = manifests.read_sample(SAMPLE, kinds)
    uid = "5f0c2f3e-8d1b-4c57-9d0a-demo00000001"
    return Look(inventory, uid, "v1.34.2", uid, "kube_system_uid", [], PlaneState.PARTIAL)
