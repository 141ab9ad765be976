"""What was read of one cluster or one set of files, as it is judged and saved in bundles."""

from __future__ import annotations

import bisect

import msgspec

from scanner import kube
from scanner.kube import Resource, Source
from scanner.model import Gap
from scanner.resources import AnyResource

EPHEMERAL = "~ephemeral"  # debug containers come and go under made-up names: one subject
PODS_KEPT = 10  # names shown as examples for each shape
UNREADABLE = "~unreadable"  # name of an object whose own name could not be read


class Shape(msgspec.Struct):
    """One distinct pod of a root; `pods` counts the running ones, 0 for a template; `names` are ten of them, sorted."""

    workload: kube.Workload
    pods: int = 0
    names: list[str] = []
    source: Source | None = None

    def count(self, name: str) -> None:
        self.pods += 1
        if len(self.names) < PODS_KEPT or name < self.names[-1]:
            bisect.insort(self.names, name)
            del self.names[PODS_KEPT:]


class RunningImage(msgspec.Struct, frozen=True, order=True, omit_defaults=True, gc=False):
    """What one container of some pods runs: the image that was asked for, and what the node says that it got.

    `image_id` is as the status has it, "" before the container was created; `platform` is the nodes' (linux/arm64), ""
    where that is not known.
    """

    container: str
    image: str
    image_id: str = ""
    platform: str = ""
    pods: int = 1


class Root(msgspec.Struct):
    """A root controller, or a pod without one, with every distinct shape of its pods and every image that they run.

    `labels` are those of its pods, each set once, where it stands without shapes.
    """

    resource: Resource
    shapes: list[Shape] = []
    images: list[RunningImage] = []
    labels: list[dict[str, str]] = []


class Invalid(msgspec.Struct, frozen=True):
    """An object or container that could not be understood."""

    resource: Resource
    message: str
    container: str | None = None


class Counts(msgspec.Struct):
    """Objects read, judged, skipped (of kinds that no check reads, or out of scope) and not understood."""

    read: int = 0
    judged: int = 0
    skipped: int = 0
    invalid: int = 0
    files_read: int = 0
    files_failed: int = 0
    lists_asked: int = 0  # list calls and documents: what --min-coverage is a share of
    lists_read: int = 0

    @property
    def lists_unread(self) -> int:
        return self.lists_asked - self.lists_read

    def add(self, other: Counts) -> None:
        for field in self.__struct_fields__:
            setattr(self, field, getattr(self, field) + getattr(other, field))


class Inventory(msgspec.Struct):
    """What one cluster, cloud account or set of files holds. `kinds` are the plurals that were asked for.

    Inside a cluster `asked` are the namespaces that were asked for and are there, "*" for all; less those that match
    `excluded`. A bundle that does not say so has asked for none.
    """

    kinds: list[str]
    asked: list[str] = []
    excluded: list[str] = []
    roots: list[Root] = []
    services: list[kube.Service] = []
    ingresses: list[kube.Ingress] = []
    others: list[Resource] = []  # judged by identity alone: ServiceAccount, ConfigMap, Secret
    cloud: list[AnyResource] = []  # the cluster itself as its cloud describes it; of an account its registries and such
    invalid: list[Invalid] = []
    gaps: list[Gap] = []
    namespace_labels: dict[str, dict[str, str]] = {}
    cloud_of_nodes: str = ""  # azure, aws or gcp, where the labels of nodes tell it
    platform_of_nodes: str = ""  # where every node has the same one, such as linux/amd64
    counts: Counts = msgspec.field(default_factory=Counts)

    @property
    def complete(self) -> bool:
        return not (self.gaps or self.invalid or self.counts.files_failed)

    def gaps_of(self, plurals: tuple[str, ...]) -> list[Gap]:
        return [g for g in self.gaps if g.what in plurals]
