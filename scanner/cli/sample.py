"""The sample estate of the demo: an Azure subscription as a scan would have read it, its refusals included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from providers.azure.reader import PER_CLUSTER, Reader
from providers.azure.recording import Recording
from providers.files import manifests
from scanner.azure import AksCluster, ArcCluster
from scanner.cli.aks import PROVIDER, account_reading, cluster_reading
from scanner.cli.discovery import Asked, Cloud
from scanner.cli.options import Discovery, Namespaces, Running
from scanner.cli.targets import Look
from scanner.collect import Progress, Reading, Task
from scanner.config import Settings
from scanner.inventory import Counts
from scanner.model import PlaneState

SAMPLE = Path(__file__).parent.parent / "demo"
CLUSTER = "demo-shop"


def demo_task(settings: Settings) -> Task:
    cloud = Cloud(PROVIDER, AksCluster.kind, PER_CLUSTER, Asked(settings, Discovery(), Namespaces(), Running()))
    inside = cloud.inside.kinds

    def read(progress: Progress) -> Iterator[Reading]:
        reader = Reader(Recording(SAMPLE / "azure" / "answers.yaml"), cloud.asked)
        for subscription in reader.subscriptions().items:
            *_, found = reader.read(subscription)
            account = cloud.account(subscription.name, subscription.text("displayName").value)
            yield account_reading(cloud, found, account)
            clusters: list[AksCluster | ArcCluster] = [*found.clusters.items, *found.arc.items]
            for cluster in clusters:
                counts = Counts()
                reader.complete(cluster, found, counts)
                look = _look(inside) if inside and cluster.name == CLUSTER else None
                yield cluster_reading(cloud, cluster, look, counts)

    return Task("the sample estate", read, inside, PROVIDER)


def _look(kinds: frozenset[str]) -> Look:
    """The inside of the cluster, with one list refused."""
    inventory = manifests.read_sample(SAMPLE, kinds)
    uid = "5f0c2f3e-8d1b-4c57-9d0a-demo00000001"
    return Look(inventory, uid, "v1.34.2", uid, "kube_system_uid", [], PlaneState.PARTIAL)
