"""Wires Azure to tasks: one finds the subscriptions, each of those its clusters, each of those is read on its own."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from providers.azure.access import ACTION, Access, api_access
from providers.azure.credentials import CLOUDS
from providers.azure.errors import ArmError, UsageError
from providers.azure.reader import Reader, Subscription, gap_of
from providers.azure.session import Session
from scanner.cli.options import AzureScope, Discovery, Namespaces, Planes, Running
from scanner.cli.targets import Inside, Look, look_inside
from scanner.cloud import AksCluster, ArcCluster, AzureSubscription, CloudResource
from scanner.clusters import server_keys
from scanner.collect import Estate, Progress, Reading, Task, unread_inventory
from scanner.config import ConfigError, Settings
from scanner.inventory import Counts, Inventory
from scanner.model import Account, Cluster, Gap, GapReason, MissingEvidence, PlaneState, utc_now

PROVIDER = "azure"
CONNECTIONS = 64
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class AksTarget:
    settings: Settings
    azure: AzureScope
    discovery: Discovery
    namespaces: Namespaces
    running: Running


@contextlib.contextmanager
def aks_tasks(target: AksTarget) -> Iterator[list[Task]]:
    """The task that finds all others. Raises ConfigError for options that cannot be used."""
    try:
        session = Session(
            CLOUDS[target.azure.cloud],
            tenant=target.azure.tenant,
            endpoint=target.azure.arm_endpoint,
            request_timeout=target.running.request_timeout,
            connections=CONNECTIONS,
        )
    except UsageError as error:
        raise ConfigError(str(error)) from None
    with contextlib.closing(session):
        yield [_Azure(target, session).task()]


class _Azure:
    def __init__(self, target: AksTarget, session: Session) -> None:
        settings = target.settings
        self.wanted, self.discovery = target.azure.subscription, target.discovery
        self.session = session
        self.kinds = settings.cloud_kinds() | {"managedClusters"}
        self.control_plane = target.discovery.planes is not Planes.DATA
        self.reader = Reader(session, settings.cloud_kinds() if self.control_plane else ())
        self.inside = Inside(settings.kinds(), target.namespaces, target.running, settings.cluster_ids)
        self.allow_local_account = target.azure.allow_local_account

    # -- subscriptions ------------------------------------------------------------------------------------------------

    def task(self) -> Task:
        return Task("Azure", self._find, self.kinds, PROVIDER, lambda *why: self._unread("azure", "Azure", *why))

    def _find(self, progress: Progress) -> Iterator[Reading | Task]:
        progress("subscriptions", 0)
        try:
            self.session.log_in()
        except ArmError as error:
            yield self._unread("azure", "Azure", error.reason, error.detail)
            return
        found = self.reader.subscriptions()
        chosen, missing = _chosen(found.items, self.wanted)
        if found.gaps and (not self.wanted or missing):
            gap = found.gaps[0]
            yield self._unread("azure", "Azure", gap.reason, gap.detail, gap.permission)
        elif not chosen and not self.wanted:
            detail = "this identity sees no subscription: give it a role in one, or name its tenant with --tenant"
            yield self._unread("azure", "Azure", GapReason.FORBIDDEN, detail, "Microsoft.Resources/subscriptions/read")
        for name, detail in missing.items():
            yield self._unread(name, name, GapReason.NOT_FOUND, detail)
        for subscription in chosen:
            yield self._subscription_task(subscription)

    def _unread(self, id: str, name: str, reason: GapReason, detail: str, permission: str = "") -> Reading:
        """A subscription, or all of Azure, of which nothing could be listed."""
        inventory = unread_inventory(self.kinds, reason, detail, permission)
        account = Account(id=id, provider=PROVIDER, name=name, refused=True, control_plane=self._plane())
        return Reading(Estate(name, inventory, account=account, scope=f"/subscriptions/{id}".lower()))

    def _plane(self) -> PlaneState:
        return PlaneState.COMPLETE if self.control_plane else PlaneState.NOT_ASKED

    def _subscription_task(self, subscription: AzureSubscription) -> Task:
        id = subscription.name
        name = subscription.text("displayName").value or id
        title = f"subscription {name}"

        def read(progress: Progress) -> Iterator[Reading | Task]:
            started = False
            for found in self.reader.read(subscription):
                progress("resources", found.counts.read)
                if not started:
                    yield from self._cluster_tasks(found)
                    started = True
            yield self._account(found, name)

        return Task(title, read, self.kinds, PROVIDER, lambda *why: self._unread(id, name, *why))

    def _account(self, found: Subscription, name: str) -> Reading:
        refused = bool(found.clusters.gaps)
        account = Account(
            id=found.resource.name, provider=PROVIDER, name=name, refused=refused, control_plane=self._plane()
        )
        inventory = Inventory(kinds=sorted(self.kinds), gaps=found.gaps, counts=found.counts)
        if self.control_plane:
            inventory.cloud = [found.resource, *found.registries.items, *found.connectors.items]
        return Reading(Estate(name, inventory, account=account, scope=found.resource.id.lower()))

    # -- clusters -----------------------------------------------------------------------------------------------------

    def _cluster_tasks(self, found: Subscription) -> Iterator[Task]:
        for cluster in found.clusters.items:
            if self._asked_for(cluster):
                yield self._cluster_task(cluster, found)
        for arc in found.arc.items:
            if self._asked_for(arc):
                yield self._cluster_task(arc, found)

    def _asked_for(self, resource: CloudResource) -> bool:
        names, tags = self.discovery.cluster, self.discovery.tag
        if names and not any(fnmatchcase(resource.name.lower(), pattern.lower()) for pattern in names):
            return False
        return all(_tagged(resource.tags, wanted) for wanted in tags)

    def _cluster_task(self, cluster: AksCluster | ArcCluster, found: Subscription) -> Task:
        def read(progress: Progress) -> Iterator[Reading]:
            counts = Counts()
            if self.control_plane:
                self.reader.complete(cluster, found, counts)
            look, inventory = self._inside(cluster, progress)
            inventory.counts.add(counts)
            yield self._reading(cluster, inventory, look)

        def lost(reason: GapReason, detail: str) -> Reading:
            return self._reading(cluster, unread_inventory(self.inside.kinds, reason, detail), None)

        return Task(cluster.name, read, self.inside.kinds, PROVIDER, lost)

    def _inside(self, cluster: AksCluster | ArcCluster, progress: Progress) -> tuple[Look | None, Inventory]:
        """What runs in it, or the gaps in place of that."""
        from providers.kubernetes.credentials import ApiAccess
        from providers.kubernetes.errors import ApiError
        from providers.kubernetes.errors import ConfigError as Unusable

        if not self._look_inside(cluster) or not isinstance(cluster, AksCluster):
            return None, Inventory(kinds=[])
        kinds, permission = self.inside.kinds, ""
        try:
            if cluster.text("properties.powerState.code").equals("Stopped"):
                raise ArmError(GapReason.UNREACHABLE, "the cluster is stopped")
            access = api_access(self.session, cluster, allow_local_account=self.allow_local_account)
            api = ApiAccess(access.server, access.ca, _token(access), certificate=access.certificate)
            look = look_inside(api, cluster.name, self.inside, progress)
            return look, look.inventory
        except ArmError as error:
            reason, detail = error.reason, error.detail
            permission = gap_of("credentials", error, ACTION).permission
        except ApiError as error:
            reason, detail = error.reason, error.detail
        except Unusable as error:
            reason, detail = GapReason.NOT_CONFIGURED, str(error)
        except MissingEvidence as missing:
            reason, detail = missing.gaps[0].reason, missing.gaps[0].sentence
        return None, unread_inventory(kinds, reason, detail, permission)

    def _look_inside(self, cluster: AksCluster | ArcCluster) -> bool:
        """Whether there is an inside to be read: asked for, and a cluster that lives."""
        try:
            lives = not cluster.unjudged
        except MissingEvidence:
            lives = True
        return bool(self.inside.kinds) and lives and isinstance(cluster, AksCluster)

    def _reading(self, cluster: AksCluster | ArcCluster, inventory: Inventory, look: Look | None) -> Reading:
        own = [gap for name in ("diagnosticSettings", "extensions") for gap in _gaps(cluster, name)]
        beside = any(_gaps(cluster, name) for name in cluster.related)
        plane = look.plane if look else PlaneState.NOT_READ if inventory.gaps else PlaneState.NOT_ASKED
        row = Cluster(
            id=cluster.id.lower(),
            uid=look.uid if look else None,
            id_source="cloud",
            cloud_id=cluster.id,
            provider=PROVIDER,
            name=cluster.name,
            account=cluster.account,
            region=cluster.region,
            version=_version(cluster) or (look.version if look else None),
            tags=cluster.tags,
            control_plane=_control_plane(self.control_plane, beside),
            data_plane=plane,
            observed_at=utc_now(),
        )
        if self.control_plane:
            inventory.cloud = [cluster]
            inventory.kinds = sorted({*inventory.kinds, *self.kinds})
            inventory.gaps = [*own, *inventory.gaps]
        keys = [*_addresses(cluster), *(look.keys if look else ())]
        scope = look.scope if look else self.inside.cluster_ids.get(cluster.name, "")
        return Reading(Estate(cluster.name, inventory, row, scope=scope, keys=keys))


def _token(access: Access) -> Callable[[], str] | None:
    """What mints tokens for the API server, with errors that its reader knows."""
    from providers.kubernetes.errors import ApiError

    mint = access.token
    if mint is None:
        return None

    def token() -> str:
        try:
            return mint()
        except ArmError as error:
            raise ApiError(error.reason, error.detail) from None

    return token


def _gaps(cluster: CloudResource, name: str) -> list[Gap]:
    return cluster.related[name].gaps if name in cluster.related else []


def _control_plane(asked: bool, gaps: bool) -> PlaneState:
    if not asked:
        return PlaneState.NOT_ASKED
    return PlaneState.PARTIAL if gaps else PlaneState.COMPLETE


def _chosen(
    found: Iterable[AzureSubscription], wanted: Iterable[str]
) -> tuple[list[AzureSubscription], dict[str, str]]:
    """Those asked for by id or name, and why others are not among them. An id that is not listed is tried all the
    same: what Azure says of it is the answer."""
    listed = list(found)
    if not wanted:
        return listed, {}
    names = {s.name.lower(): s for s in listed} | {s.text("displayName").value.lower(): s for s in listed}
    chosen: dict[str, AzureSubscription] = {}
    missing: dict[str, str] = {}
    for name in wanted:
        subscription = names.get(name.strip().lower())
        if subscription is None and _GUID.fullmatch(name):
            subscription = AzureSubscription(wire={}, id=f"/subscriptions/{name}", name=name, account=name, related={})
        if subscription:
            chosen[subscription.id.lower()] = subscription
        else:
            close = difflib.get_close_matches(name, [s.text("displayName").value for s in listed], n=1, cutoff=0.5)
            offer = f"; did you mean {close[0]!r}?" if close else ""
            missing[name] = f"no subscription that this identity sees is named {name!r}{offer}"
    return list(chosen.values()), missing


def _tagged(tags: dict[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    have = {k.lower(): v for k, v in tags.items()}  # Azure does not tell the case of a tag's name
    return key.lower() in have and (not equals or have[key.lower()] == value)


def _text(cluster: CloudResource, path: str) -> str:
    try:
        return cluster.text(path).value
    except MissingEvidence:
        return ""


def _version(cluster: CloudResource) -> str | None:
    names = ("currentKubernetesVersion", "kubernetesVersion")
    return next((version for name in names if (version := _text(cluster, f"properties.{name}"))), None)


def _addresses(cluster: CloudResource) -> list[str]:
    """What a kubeconfig of this cluster would have in common with it."""
    names = [_text(cluster, f"properties.{field}") for field in ("fqdn", "privateFQDN")]
    return [key for name in names if name for key in server_keys(f"https://{name}", None)]
