"""What runs inside one cluster, read with GET alone: raw pages, each object decoded by itself.

A refused list becomes a gap that names the missing permission; the rest of the cluster is still read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeVar
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Raw, UnsetType

from providers.kubernetes.connection import Connection
from providers.kubernetes.errors import ApiError
from scanner import kube, wire
from scanner.inventory import Inventory
from scanner.kube import KINDS, Kind
from scanner.model import Gap, GapReason, utc_now
from scanner.normalize import NotUnderstood, decode
from scanner.workloads import Fold

T = TypeVar("T")

PAGE = 500
JSON = "application/json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

# Of these only metadata is asked for: nothing else of them is read, and data of ConfigMaps never leaves the server.
METADATA_ONLY = frozenset({"namespaces", "nodes", "configmaps", "replicasets"})

# Nodes before pods, whose system they tell; pods before the templates that they make superfluous.
ORDER = (
    "nodes",
    "serviceaccounts",
    "limitranges",
    "rolebindings",
    "clusterrolebindings",
    "ingressclasses",
    "frontendconfigs",
    "replicasets",
    "pods",
    "deployments",
    "statefulsets",
    "daemonsets",
    "jobs",
    "cronjobs",
    "replicationcontrollers",
    "podtemplates",
    "services",
    "ingresses",
    "configmaps",
)
NEVER_READ = frozenset({"secrets"})
GKE_ONLY = frozenset(
    {"frontendconfigs"}
)  # asked for elsewhere, a role without them would leave a gap that means nothing

EXPIRIES = 5  # how often one list may answer 410 before it is given up


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a cluster is asked for. `namespaces` are exact names; `fallback` serves where they cannot be listed."""

    kinds: frozenset[str]
    namespaces: Sequence[str] = ()
    exclude: Sequence[str] = ()
    fallback: str | None = None

    def keeps(self, namespace: str) -> bool:
        return not any(fnmatchcase(namespace, pattern) for pattern in self.exclude)


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """`uid` is that of namespace kube-system, None where it could not be read; `version` the server's gitVersion."""

    uid: str | None
    version: str | None


class _ListMeta(wire.Wire, frozen=True):
    resume: str | None = msgspec.field(name="continue", default=None)
    remaining_item_count: int | None = None


class _Page(wire.Wire, frozen=True):
    kind: str | None = None
    metadata: _ListMeta | None = None
    items: tuple[Raw, ...] | UnsetType | None = UNSET  # null is a list of nothing; without the field it is no list


class _Key(wire.Wire, frozen=True):
    metadata: wire.PodMeta | None = None


class _Version(wire.Wire, frozen=True):
    git_version: str | None = None


def facts(connection: Connection) -> ClusterFacts:
    """Identity and version; either may be refused without making the scan incomplete, as no check rests on them."""
    uid = _optional(connection, "/api/v1/namespaces/kube-system", METADATA, wire.MetaOnly)
    version = _optional(connection, "/version", JSON, _Version)
    meta = uid.metadata if uid else None
    return ClusterFacts(meta.uid if meta else None, version.git_version if version else None)


def _optional(connection: Connection, path: str, accept: str, kind: type[T]) -> T | None:
    try:
        return decode(connection.get(path, accept=accept), kind)
    except (ApiError, NotUnderstood):
        return None


def read(connection: Connection, scope: Scope, version: str | None, progress: Callable[[str, int], None]) -> Inventory:
    """Everything in scope; what was refused is in the inventory's gaps."""
    reader = _Reader(connection, scope, progress)
    reader.fold.lookups.in_cluster = True
    reader.fold.ingress_facts.gke = "-gke." in (version or "")
    if version and not reader.fold.ingress_facts.gke:
        reader.elsewhere = GKE_ONLY
    return reader.read()


@dataclass(slots=True)
class _Reader:
    connection: Connection
    scope: Scope
    progress: Callable[[str, int], None]
    fold: Fold = field(init=False)
    namespaces: list[str] = field(default_factory=list)
    more_namespaces: bool = False  # they could not be listed: there may be others
    fatal: ApiError | None = None
    elsewhere: frozenset[str] = frozenset()  # kinds that mean nothing in this cluster

    def __post_init__(self) -> None:
        self.fold = Fold(self.scope.kinds - NEVER_READ | {"namespaces"}, keep=self.scope.keeps)

    def read(self) -> Inventory:
        self._read_namespaces()
        for plural in sorted(self.scope.kinds - NEVER_READ - self.elsewhere - {"namespaces"}, key=ORDER.index):
            self._read_kind(KINDS[plural])
            if plural == "pods" and "replicasets" in self.scope.kinds:
                self._read_lone_replicasets()
        inventory = self.fold.finish()
        inventory.asked = list(self.namespaces) if self.scope.namespaces else ["*"]
        inventory.excluded = list(self.scope.exclude)
        return inventory

    # -- namespaces ---------------------------------------------------------------------------------------------------

    def _read_namespaces(self) -> None:
        if self.scope.namespaces:
            asked = {name: self._look_at(name) for name in self.scope.namespaces}
            self.namespaces = [name for name, error in asked.items() if error is None]
            if not self.namespaces:
                self.fatal = next(iter(asked.values()))
            return
        try:
            self._list(KINDS["namespaces"], "*")
        except ApiError as error:
            self._refused(KINDS["namespaces"], "*", error)
            self.more_namespaces = True
            fallback = self.scope.fallback
            self.namespaces = [fallback] if fallback and not self.fatal and not self._look_at(fallback) else []
        else:
            self.namespaces = [n for n in self.fold.namespaces() if self.scope.keeps(n)]

    def _look_at(self, namespace: str) -> ApiError | None:
        """Its labels, and why it may not be there: a misspelt one answers every list with 200 and nothing."""
        kind = KINDS["namespaces"]
        try:
            self.fold.add(kind, self.connection.get(f"{kind.api}/namespaces/{quote(namespace, '')}", accept=METADATA))
        except ApiError as error:
            if error.status != 403:  # not allowed to look at it, perhaps allowed to list in it
                self._refused(kind, namespace, error)
            return error if error.status == 404 else None
        return None

    # -- lists --------------------------------------------------------------------------------------------------------

    def _read_kind(self, kind: Kind) -> None:
        """Cluster-wide where nobody named namespaces, else, or if that is refused, namespace by namespace."""
        if self.fatal:
            self.fold.counts.lists_asked += 1
            self._gap(kind, "*", self.fatal)
            return
        if kind.namespaced and self.scope.namespaces:
            self._read_each(kind)
            return
        before = self.fold.counts.read
        try:
            self._list(kind, "*")
        except ApiError as error:
            # Refused in the middle of a list, what was read would be read twice.
            if error.status == 403 and kind.namespaced and self.fold.counts.read == before:
                self._read_each(kind, error)
            else:
                self._refused(kind, "*", error)

    def _read_each(self, kind: Kind, refusal: ApiError | None = None) -> None:
        """Namespace by namespace. `refusal`, of the cluster-wide list, stands where there are namespaces that nobody
        knows of, or where none may be read."""
        refused: dict[str, ApiError] = {}
        for namespace in self.namespaces:
            try:
                self._list(kind, namespace)
            except ApiError as error:
                refused[namespace] = error
                if self._note_fatal(error):
                    refused, refusal = {"*": error}, None
                    break
            else:
                self.fold.lookups.gaps[kind.plural, namespace] = None
        if refusal and (self.more_namespaces or len(refused) == len(self.namespaces)):
            refused = {"*": refusal}
        for namespace, why in refused.items():
            self._refused(kind, namespace, why)

    def _note_fatal(self, error: ApiError) -> bool:
        """Whether no further request can succeed: refused credentials, or a server that never answered at all."""
        if error.status == 401 or (error.status is None and not self.connection.answered):
            self.fatal = error
        return self.fatal is not None

    def _refused(self, kind: Kind, namespace: str, error: ApiError) -> None:
        if kind.optional and error.status == 404:
            return  # the cluster has no such kind
        self._note_fatal(error)
        self._gap(kind, namespace, error)

    def _gap(self, kind: Kind, namespace: str, error: ApiError, verb: str = "list") -> None:
        where = "" if namespace == "*" else f" in namespace {namespace}"
        right = f"{verb} {kind.plural}{'.' + kind.group if kind.group else ''}{where}"
        self.fold.gap(
            Gap(
                what=kind.plural,
                reason=error.reason,
                detail=error.detail,
                permission=right if error.status == 403 else "",
                namespace=namespace,
                time=utc_now(),
            )
        )

    def _list(self, kind: Kind, namespace: str) -> None:
        """One list with all its pages, folded as they come. Raises ApiError."""
        self.fold.counts.lists_asked += 1
        accept = f"{METADATA_LIST},{JSON}" if kind.plural in METADATA_ONLY else JSON
        for page in pages(self.connection, kind, namespace, accept):
            take = self.fold.add_metadata if kind.plural == "replicasets" else self.fold.add
            for item in page:
                take(kind, item)
            self.progress(kind.plural, self.fold.counts.read)
        self.fold.counts.lists_read += 1

    def _read_lone_replicasets(self) -> None:
        """A ReplicaSet that nobody controls is a root of its own; without pods only its template shows what it is."""
        kind = KINDS["replicasets"]
        refused: set[str] = set()
        for namespace, name in self.fold.without_pods(kind.name):
            if namespace in refused:
                continue
            path = f"{kind.api}/namespaces/{quote(namespace, '')}/{kind.plural}/{quote(name, '')}"
            try:
                self.fold.add(kind, self.connection.get(path))
            except ApiError as error:
                if error.status != 404:  # deleted since the list
                    refused.add(namespace)
                    self._gap(kind, namespace, error, "get")
                    if self._note_fatal(error):
                        return


def pages(
    connection: Connection, kind: Kind, namespace: str, accept: str = JSON, size: int = PAGE
) -> Iterator[Sequence[Raw]]:
    """The items of one list, page by page; `namespace` is "*" for those of all. Raises ApiError."""
    place = "" if namespace == "*" else f"/namespaces/{quote(namespace, '')}"
    path = f"{kind.api}{place}/{kind.plural}"
    resume, last, skipping, expired = "", "", False, 0
    while True:
        query = {"limit": str(size), **({"continue": resume} if resume else {})}
        try:
            page = _decode_page(connection.get(path, query, accept), kind)
        except ApiError as error:
            if error.status != 410 or not resume or expired == EXPIRIES:
                raise
            # Expired: go on where the server says, or from the start past what was read. Lists are in key order.
            resume = error.continue_token
            skipping = skipping or not resume
            expired += 1
            continue
        items: Sequence[Raw] = page.items or ()
        if skipping:
            items = [item for item in items if not (key := _key(item)) or key > last]
        last = next(filter(None, map(_key, reversed(items))), last)
        yield items
        given, resume = resume, (page.metadata.resume if page.metadata else None) or ""
        if resume and resume == given:
            raise ApiError(GapReason.BAD_DATA, f"the list of {kind.plural} comes again and again", 200)
        if not resume and page.metadata and page.metadata.remaining_item_count:
            raise ApiError(GapReason.BAD_DATA, f"the list of {kind.plural} ends before its last page", 200)
        if not resume:
            return


def _decode_page(body: bytes, kind: Kind) -> _Page:
    """A list of the right kind; anything else with status 200 is no answer, and never an empty list."""
    try:
        page = decode(body, _Page)
    except NotUnderstood as error:
        start = re.sub(rb"\s+", b" ", body[:40]).decode("utf-8", "replace")
        why = f"the answer is not a list of {kind.plural}: {error} (it starts {start!r})"
    else:
        if page.kind in (f"{kind.name}List", "PartialObjectMetadataList", "List") and page.items is not UNSET:
            return page
        why = f"the answer is of kind {page.kind!r} and not a whole list of {kind.plural}"
    raise ApiError(GapReason.BAD_DATA, kube.printable(why), 200)


def _key(item: Raw) -> str:
    try:
        meta = decode(item, _Key).metadata or wire.PodMeta()
    except NotUnderstood:
        return ""
    return f"{meta.namespace or ''}/{meta.name or ''}"
