"""Subscriptions and what is in them: lists that know whether they are complete, as resources that checks judge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from providers.azure.errors import ArmError
from scanner.azure import AksCluster, ArcCluster, AzureSubscription, ContainerRegistry, SecurityConnector
from scanner.cloud import CloudResource, kept
from scanner.inventory import Counts
from scanner.model import Collected, Gap, GapReason, utc_now
from scanner.plain import plain

Json = dict[str, Any]
R = TypeVar("R", bound=CloudResource)


@dataclass(frozen=True, slots=True)
class List:
    """A list of Azure Resource Manager: what follows the scope in its path, and the right to read it."""

    suffix: str
    version: str
    action: str
    items: str = "value"


AKS_VERSION = "2026-08-01"
_ARM = "/providers/Microsoft."
LISTS = {
    "subscriptions": List("/subscriptions", "2022-12-01", "Microsoft.Resources/subscriptions/read"),
    "permissions": List(f"{_ARM}Authorization/permissions", "2022-04-01", "Microsoft.Authorization/permissions/read"),
    "managedClusters": List(
        f"{_ARM}ContainerService/managedClusters", AKS_VERSION, "Microsoft.ContainerService/managedClusters/read"
    ),
    "registries": List(
        f"{_ARM}ContainerRegistry/registries", "2025-11-01", "Microsoft.ContainerRegistry/registries/read"
    ),
    "connectedClusters": List(
        f"{_ARM}Kubernetes/connectedClusters", "2024-01-01", "Microsoft.Kubernetes/connectedClusters/read"
    ),
    "securityConnectors": List(
        f"{_ARM}Security/securityConnectors", "2024-08-01-preview", "Microsoft.Security/securityConnectors/read"
    ),
    "pricings": List(f"{_ARM}Security/pricings", "2024-01-01", "Microsoft.Security/pricings/read"),
    "diagnosticSettings": List(
        f"{_ARM}Insights/diagnosticSettings", "2021-05-01-preview", "Microsoft.Insights/diagnosticSettings/read"
    ),
    "extensions": List(
        f"{_ARM}KubernetesConfiguration/extensions",
        "2023-05-01",
        "Microsoft.KubernetesConfiguration/extensions/read",
    ),
    "kubernetesVersions": List(
        "/kubernetesVersions",
        AKS_VERSION,
        "Microsoft.ContainerService/locations/kubernetesVersions/read",
        items="values",
    ),
}
PER_CLUSTER = ("diagnosticSettings", "extensions")  # asked for one cluster at a time
# What of these is kept beside a resource, in memory and in bundles.
_KEEP = {
    "diagnosticSettings": (
        "name",
        "properties.logs",
        "properties.workspaceId",
        "properties.storageAccountId",
        "properties.eventHubAuthorizationRuleId",
        "properties.marketplacePartnerId",
    ),
    "extensions": ("name", "properties.extensionType", "properties.provisioningState", "properties.version"),
    "kubernetesVersions": ("version", "isPreview", "capabilities", "patchVersions"),
    "pricings": ("name", "properties.pricingTier", "properties.extensions"),
}
LONGEST_ID = 2000  # characters; Azure's own are far shorter
# A resource provider that was never registered in a subscription: none of its resources can exist there.
_UNREGISTERED = frozenset({"MissingSubscriptionRegistration", "SubscriptionNotRegistered"})
_CREATED = ("managedClusters", "connectedClusters", "registries", "securityConnectors")  # by somebody, once registered


@dataclass(slots=True)
class Subscription:
    """One subscription with what was read of it; `allowed` answers whether an action is permitted in all of it."""

    resource: AzureSubscription
    allowed: Permissions
    clusters: Collected[AksCluster] = field(default_factory=Collected)
    arc: Collected[ArcCluster] = field(default_factory=Collected)
    registries: Collected[ContainerRegistry] = field(default_factory=Collected)
    connectors: Collected[SecurityConnector] = field(default_factory=Collected)
    beside: list[Gap] = field(default_factory=list)  # of Defender plans and Kubernetes versions
    counts: Counts = field(default_factory=Counts)

    @property
    def gaps(self) -> list[Gap]:
        lists: tuple[Collected[Any], ...] = (self.clusters, self.arc, self.registries, self.connectors)
        # Clusters tell themselves that nothing is known of them.
        unread = [r.unread for found in (self.registries, self.connectors) for r in found.items if r.unread]
        return [*(gap for found in lists for gap in found.gaps), *self.beside, *unread]


@dataclass(frozen=True, slots=True)
class Permissions:
    """What the identity may do in a whole subscription, or why that could not be asked."""

    granted: tuple[Json, ...]
    unread: Gap | None = None

    def allows(self, action: str) -> bool:
        return any(
            _covers(entry.get("actions"), action) and not _covers(entry.get("notActions"), action)
            for entry in self.granted
        )


def _covers(patterns: Any, action: str) -> bool:
    if not isinstance(patterns, list):
        return False
    return any(
        isinstance(p, str) and re.fullmatch(".*".join(map(re.escape, re.split(r"\*+", p))), action, re.IGNORECASE)
        for p in patterns
    )


class Answers(Protocol):
    """Where lists come from: Azure Resource Manager, or a recording of it."""

    def pages(self, path: str, version: str, items: str = "value") -> Iterator[list[Any]]: ...


class Reader:
    """Reads one subscription after the other for many threads. `kinds` are the lists that the checks need."""

    def __init__(self, session: Answers, kinds: Iterable[str]) -> None:
        self.session = session
        self.kinds = frozenset(kinds)
        self._allowed: dict[str, Permissions] = {}  # by subscription

    # -- subscriptions ------------------------------------------------------------------------------------------------

    def subscriptions(self) -> Collected[AzureSubscription]:
        """Every subscription that the identity sees."""
        found = self._list("subscriptions", "", Counts())
        return _resources(AzureSubscription, found, "")

    def read(self, subscription: AzureSubscription) -> Iterator[Subscription]:
        """Twice the same object: when the clusters are known, and when the rest is too."""
        counts = Counts(read=1, judged=1)
        result = Subscription(subscription, self.permissions(subscription.id, counts), counts=counts)
        result.clusters = self._resources(AksCluster, result)
        self._add_versions(result)
        if "connectedClusters" in self.kinds:
            result.arc = self._resources(ArcCluster, result)
        yield result
        if "registries" in self.kinds:
            result.registries = self._resources(ContainerRegistry, result)
        if "securityConnectors" in self.kinds:
            result.connectors = self._resources(SecurityConnector, result)
        if "pricings" in self.kinds:
            subscription.related["pricings"] = self._beside("pricings", subscription.id, result)
        subscription.related["containerResources"] = _container_resources(result)
        yield result

    def permissions(self, scope: str, counts: Counts) -> Permissions:
        """What the identity may do in the whole subscription of this id, which is asked once."""
        if scope not in self._allowed:
            found = self._list("permissions", scope, counts)
            self._allowed[scope] = Permissions(tuple(found.items), next(iter(found.gaps), None))
        return self._allowed[scope]

    def _resources(self, kind: type[R], result: Subscription) -> Collected[R]:
        found = self._proven(kind.kind, result.resource.id, result)
        resources = _resources(kind, found, result.resource.name)
        result.counts.read += len(resources.items)
        result.counts.judged += len(resources.items)
        return resources

    def _add_versions(self, result: Subscription) -> None:
        """The Kubernetes versions that Azure supports, asked once for each location that has clusters."""
        if "kubernetesVersions" not in self.kinds:
            return
        by_place: dict[str, Collected[Json]] = {}
        for cluster in result.clusters.items:
            place = (cluster.region or "").replace(" ", "").lower()
            if place not in by_place:
                scope = f"{result.resource.id}{_ARM}ContainerService/locations/{place}"
                by_place[place] = self._beside("kubernetesVersions", scope, result)
            cluster.related["kubernetesVersions"] = by_place[place]

    # -- beside one resource ------------------------------------------------------------------------------------------

    def complete(self, resource: AksCluster | ArcCluster, subscription: Subscription, counts: Counts) -> None:
        """Adds what has to be asked for one cluster at a time, where a check will look at it."""
        what = _per_cluster(resource)
        if what in self.kinds and resource.lives:
            found = self._proven(what, resource.id, subscription, counts)
            resource.related[what] = _projected(what, found)

    def give_up(self, resource: AksCluster | ArcCluster, reason: GapReason, detail: str) -> None:
        """In place of `complete`: what that would have added is missing."""
        what = _per_cluster(resource)
        if what in self.kinds and what not in resource.related and resource.lives:
            resource.related[what] = Collected([], [_gap(what, reason, detail)])

    def _beside(self, what: str, scope: str, result: Subscription) -> Collected[Json]:
        """A list that is never empty in truth."""
        found = _projected(what, self._list(what, scope, result.counts))
        if not found.items and not found.gaps:
            detail = "Azure answered with an empty list, which this one never truly is"
            found.gaps.append(gap_of(what, ArmError(GapReason.BAD_DATA, detail, action=LISTS[what].action)))
        result.beside += found.gaps
        return found

    # -- lists --------------------------------------------------------------------------------------------------------

    def _proven(self, what: str, scope: str, result: Subscription, counts: Counts | None = None) -> Collected[Json]:
        """A list of which the identity provably sees all: of a subscription, Azure leaves out what one may not read."""
        try:
            found = self._list(what, scope, counts or result.counts)
        except _NoneThere:
            return Collected()
        of_one_resource = scope != result.resource.id  # where it is refused as a whole, or given
        if found.gaps or (found.items and of_one_resource) or result.allowed.allows(LISTS[what].action):
            return found
        return Collected(found.items, [_unproven(what, result.allowed.unread)])

    def _list(self, what: str, scope: str, counts: Counts) -> Collected[Json]:
        """A list with all its pages; what came before a failure stays. Raises _NoneThere."""
        wanted = LISTS[what]
        counts.lists_asked += 1
        items: list[Json] = []
        gaps: list[Gap] = []
        try:
            for page in self.session.pages(f"{scope}{wanted.suffix}", wanted.version, wanted.items):
                items += [item for item in page if isinstance(item, dict)]
                if len(odd := [item for item in page if not isinstance(item, dict)]):
                    gaps.append(_gap(what, GapReason.BAD_DATA, f"{len(odd)} entries of the list are no objects"))
        except ArmError as error:
            if error.code in _UNREGISTERED and what in _CREATED and not items:
                counts.lists_read += 1
                raise _NoneThere from None
            gaps.append(gap_of(what, error))
        if not gaps:
            counts.lists_read += 1
        return Collected(items, gaps)


class _NoneThere(Exception):
    """Azure says that there can be no resource of this type."""


def _per_cluster(resource: AksCluster | ArcCluster) -> str:
    return "diagnosticSettings" if isinstance(resource, AksCluster) else "extensions"


def gap_of(what: str, error: ArmError, action: str = "") -> Gap:
    """The gap that a failed request leaves, with the right that would close it."""
    refused = error.status in (403, 404)
    permission = error.action or ((action or LISTS[what].action) if refused else "")
    return Gap(what=what, reason=error.reason, detail=plain(error.detail), permission=permission, time=utc_now())


def _unproven(what: str, unread: Gap | None) -> Gap:
    """For a list that may lack what the identity may not see."""
    if unread is None:
        detail = "the right to read is not held in the whole subscription, so the list may lack entries"
        return _gap(what, GapReason.FORBIDDEN, detail)
    detail = f"the list may lack entries, as it could not be asked whether all may be seen: {unread.detail}"
    return Gap(what=what, reason=unread.reason, detail=plain(detail), permission=unread.permission, time=utc_now())


def _gap(what: str, reason: GapReason, detail: str) -> Gap:
    permission = LISTS[what].action if reason is GapReason.FORBIDDEN else ""
    return Gap(what=what, reason=reason, detail=detail, permission=permission, time=utc_now())


def _projected(what: str, found: Collected[Json]) -> Collected[Json]:
    return Collected([kept(item, _KEEP[what]) for item in found.items], found.gaps)


def _container_resources(result: Subscription) -> Collected[Json]:
    """What a Defender for Containers plan would protect."""
    lists: tuple[Collected[Any], ...] = (result.clusters, result.arc, result.registries)
    return Collected([{"id": r.id} for found in lists for r in found.items], [g for found in lists for g in found.gaps])


def _resources(kind: type[R], found: Collected[Json], account: str) -> Collected[R]:
    """Each resource once, as pages may overlap; an entry without identity is a gap."""
    resources: dict[str, R] = {}
    gaps = list(found.gaps)
    for item in found.items:
        try:
            resource = understood(kind, item, account)
        except ValueError as error:
            gaps.append(_gap(kind.kind, GapReason.BAD_DATA, str(error)))
            continue
        known = resources.setdefault(resource.id.lower(), resource)
        if known.wire != resource.wire:
            known.unread = _gap(kind.kind, GapReason.BAD_DATA, "Azure listed it twice, and not alike")
    return Collected(list(resources.values()), gaps)


def _without_properties(kind: type[CloudResource]) -> Gap:
    """A resource of which nothing is said: every absent field would read as its default."""
    return _gap(kind.kind, GapReason.BAD_DATA, "Azure listed it without any properties")


def understood(kind: type[R], item: Mapping[str, Any], account: str) -> R:
    """A resource from what Azure sent; raises ValueError where that does not say which resource it is."""
    id, region, tags = item.get("id"), item.get("location"), item.get("tags")
    usable = isinstance(id, str) and id.isascii() and id.lower().startswith("/subscriptions/")
    if not isinstance(id, str) or not usable or len(id) > LONGEST_ID:
        raise ValueError(f"an entry has no usable id: {plain(str(id))[:80]!r}")
    name = item.get("subscriptionId") if kind is AzureSubscription else item.get("name")
    if not isinstance(name, str) or not name or len(name) > LONGEST_ID:
        name = id.rpartition("/")[2]
    return kind(
        wire=kept(dict(item), kind.KEEP),
        id=id.rstrip("/"),
        name=name,
        account=account or name,
        region=region if isinstance(region, str) else None,
        tags={k: v if isinstance(v, str) else str(v) for k, v in tags.items()} if isinstance(tags, dict) else {},
        unread=None if item.get("properties") or kind is AzureSubscription else _without_properties(kind),
        related={},
    )
