"""Wires Azure to tasks: one finds the subscriptions, each of those its clusters, each of those is read on its own."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from providers.azure.access import ACTION, Access, api_server
from providers.azure.credentials import CLOUDS
from providers.azure.errors import ArmError, UsageError
from providers.azure.reader import PER_CLUSTER, Reader, Subscription, gap_of, lives
from providers.azure.session import Session
from scanner.azure import AksCluster, ArcCluster, AzureSubscription
from scanner.cli.options import AzureScope, Discovery, Namespaces, Planes, Running
from scanner.cli.targets import Inside, Look, look_inside
from scanner.cloud import CloudResource
from scanner.clusters import server_keys
from scanner.collect import Estate, Progress, Reading, Task, unread, unread_inventory
from scanner.config import ConfigError, Settings
from scanner.inventory import Counts, Inventory
from scanner.kube import printable
from scanner.model import Account, Cluster, GapReason, MissingEvidence, PlaneState, utc_now

PROVIDER = "azure"
CONNECTIONS = 64
_TAGS = "--tag"
_HOST = re.compile(r"[\w.-]+")
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
    for tag in target.discovery.tag:
        if not tag.partition("=")[0].strip():  # no cluster has it, so all would be clean
            raise ConfigError(f"--tag {tag!r} names no tag: KEY or KEY=VALUE")
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
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("azure"):
            raise
        raise ConfigError("the Azure SDK is not installed: pip install 'kubeposture[azure]'") from None
    with contextlib.closing(session):
        yield [_Azure(target, session).task()]


class _Azure:
    def __init__(self, target: AksTarget, session: Session) -> None:
        settings = target.settings
        self.wanted, self.discovery = target.azure.subscription, target.discovery
        self.session = session
        self.kinds = settings.cloud_kinds() | {"managedClusters"}
        self.control_plane = target.discovery.planes is not Planes.DATA and bool(settings.cloud_kinds())
        self.reader = Reader(session, settings.cloud_kinds() if self.control_plane else ())
        self.inside = Inside(settings.kinds(), target.namespaces, target.running, settings.cluster_ids)
        self.allow_local_account = target.azure.allow_local_account
        self.unmatched = {*target.discovery.cluster, *([_TAGS] if target.discovery.tag else [])}
        self.unlisted = 0  # subscriptions whose clusters are not yet known
        self.lock = threading.Lock()

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
        self.unlisted = len(chosen)
        for subscription in chosen:
            yield self._subscription_task(subscription)

    def _unread(self, id: str, name: str, reason: GapReason, detail: str, permission: str = "") -> Reading:
        """A subscription, or all of Azure, of which nothing could be listed."""
        inventory = unread_inventory(self.kinds, reason, detail, permission)
        return Reading(Estate(name, inventory, account=self._account(id, name), scope=f"/subscriptions/{id}".lower()))

    def _account(self, id: str, name: str) -> Account:
        """As long as nothing is known of its clusters."""
        asked = {True: PlaneState.COMPLETE, False: PlaneState.NOT_ASKED}
        return Account(
            id=id,
            provider=PROVIDER,
            name=name,
            refused=True,
            control_plane=asked[self.control_plane],
            data_plane=asked[bool(self.inside.kinds)],
        )

    def _subscription_task(self, subscription: AzureSubscription) -> Task:
        id = subscription.name
        name = _text(subscription, "displayName") or id
        title = f"subscription {printable(name)}"

        def read(progress: Progress) -> Iterator[Reading | Task]:
            started = False
            for found in self.reader.read(subscription):
                progress("resources", found.counts.read)
                if not started:
                    yield from self._cluster_tasks(found)
                    yield from self._unknown_names()
                    started = True
            yield account_reading(found, self._account(id, name), self.kinds)

        return Task(title, read, self.kinds, PROVIDER, lambda *why: self._unread(id, name, *why))

    # -- clusters -----------------------------------------------------------------------------------------------------

    def _cluster_tasks(self, found: Subscription) -> Iterator[Task]:
        for cluster in found.clusters.items:
            if self._asked_for(cluster):
                yield self._cluster_task(cluster, found)
        for arc in found.arc.items:
            if self._asked_for(arc):
                yield self._cluster_task(arc, found)

    def _unknown_names(self) -> Iterator[Reading]:
        """When the clusters of the last subscription are known: names asked for that none of them has."""
        with self.lock:
            self.unlisted -= 1
            last = not self.unlisted
        for name in sorted(self.unmatched) if last else ():
            if name == _TAGS:
                name, detail = " ".join(self.discovery.tag), "no cluster that this identity sees has these tags"
            else:
                detail = f"no cluster that this identity sees is named {name!r}"
            yield unread(name, PROVIDER, self.inside.kinds or self.kinds, GapReason.NOT_FOUND, detail)

    def _asked_for(self, resource: CloudResource) -> bool:
        names, name = self.discovery.cluster, resource.name.lower()
        matching = [pattern for pattern in names if fnmatchcase(name, pattern.lower())]
        self.unmatched.difference_update(matching)
        tagged = all(_tagged(resource.tags, wanted) for wanted in self.discovery.tag)
        if tagged:
            self.unmatched.discard(_TAGS)
        return tagged and bool(matching or not names)

    def _cluster_task(self, cluster: AksCluster | ArcCluster, found: Subscription) -> Task:
        kinds = self.kinds if self.control_plane else frozenset()

        def read(progress: Progress) -> Iterator[Reading]:
            counts = Counts()
            if self.control_plane:
                self.reader.complete(cluster, found, counts)
            yield cluster_reading(cluster, self._look(cluster, progress), kinds, counts)

        def lost(reason: GapReason, detail: str) -> Reading:
            if self.control_plane:
                self.reader.give_up(cluster, reason, detail)
            look = self._unread_inside(cluster, reason, detail) if self._has_inside(cluster) else None
            return cluster_reading(cluster, look, kinds, Counts())

        return Task(printable(cluster.name), read, self.inside.kinds, PROVIDER, lost)

    def _has_inside(self, cluster: AksCluster | ArcCluster) -> bool:
        """Whether there is an inside to be read: asked for, and an AKS cluster that lives."""
        return bool(self.inside.kinds) and isinstance(cluster, AksCluster) and lives(cluster)

    def _look(self, cluster: AksCluster | ArcCluster, progress: Progress) -> Look | None:
        """What runs in it, or the gaps in place of that; None where there is no inside to be read."""
        from providers.kubernetes.credentials import ApiAccess
        from providers.kubernetes.errors import ApiError
        from providers.kubernetes.errors import ConfigError as Unusable

        if not self._has_inside(cluster) or not isinstance(cluster, AksCluster):
            return None
        keys: list[str] = []
        permission = ""
        try:
            if cluster.text("properties.powerState.code").equals("Stopped"):
                raise ArmError(GapReason.UNREACHABLE, "the cluster is stopped")
            server = api_server(self.session, cluster)
            keys = server_keys(server.url, server.ca)
            access = server.access(self.session, allow_local_account=self.allow_local_account)
            api = ApiAccess(server.url, server.ca, _token(access), certificate=access.certificate)
            # By its id, as the configuration's cluster_ids may mean but one of two clusters of one name.
            look = look_inside(api, cluster.id.lower(), self.inside, progress)
            # What it says of an Arc connection is not believed: it could claim that of another cluster.
            return dataclasses.replace(look, keys=[key for key in look.keys if not key.startswith("id:")])
        except ArmError as error:
            gap = gap_of("credentials", error, ACTION)
            reason, detail, permission = gap.reason, gap.detail, gap.permission
        except ApiError as error:
            reason, detail = error.reason, error.detail
        except Unusable as error:
            reason, detail = GapReason.NOT_CONFIGURED, str(error)
        except MissingEvidence as missing:
            reason, detail = missing.gaps[0].reason, missing.gaps[0].sentence
        return self._unread_inside(cluster, reason, detail, permission, keys)

    def _unread_inside(
        self, cluster: CloudResource, reason: GapReason, detail: str, permission: str = "", keys: Iterable[str] = ()
    ) -> Look:
        inventory = unread_inventory(self.inside.kinds, reason, detail, permission)
        scope = self.inside.cluster_ids.get(cluster.id.lower(), "")
        return Look(inventory, None, None, scope, "config", list(keys), PlaneState.NOT_READ)


def account_reading(found: Subscription, account: Account, kinds: Iterable[str]) -> Reading:
    """What is judged of a subscription itself; its clusters come one by one."""
    account.refused = bool(found.clusters.gaps)
    account.clusters = len(found.clusters.items)
    inventory = Inventory(kinds=sorted(kinds), gaps=found.gaps, counts=found.counts)
    if account.control_plane is not PlaneState.NOT_ASKED:
        inventory.cloud = [found.resource, *found.registries.items, *found.connectors.items]
    return Reading(Estate(account.name, inventory, account=account, scope=found.resource.id.lower()))


def cluster_reading(
    cluster: AksCluster | ArcCluster, look: Look | None, kinds: frozenset[str], counts: Counts
) -> Reading:
    """A cluster with what runs inside, None if that was not asked for; `kinds` is empty where the control plane was
    not."""
    inventory = look.inventory if look else Inventory(kinds=[])
    inventory.counts.add(counts)
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
        data_plane=look.plane if look else PlaneState.NOT_ASKED,
        observed_at=utc_now(),
    )
    if kinds:
        incomplete = any(found.gaps for found in cluster.related.values())
        row.control_plane = PlaneState.PARTIAL if incomplete else PlaneState.COMPLETE
        # The account has told of what was asked once for many clusters.
        own = [gap for what in PER_CLUSTER if what in cluster.related for gap in cluster.related[what].gaps]
        inventory.cloud = [cluster]
        inventory.kinds = sorted({*inventory.kinds, *kinds})
        inventory.gaps = [*own, *inventory.gaps]
    keys = [*_addresses(cluster), *(look.keys if look else ())]
    return Reading(Estate(cluster.name, inventory, row, scope=look.scope if look else "", keys=keys))


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


def _chosen(
    found: Iterable[AzureSubscription], wanted: Iterable[str]
) -> tuple[list[AzureSubscription], dict[str, str]]:
    """Those asked for by id or name, and why others are not among them. An id that is not listed is tried all the
    same: what Azure says of it is the answer."""
    listed = [(s, _text(s, "displayName")) for s in found]
    chosen = {s.id.lower(): s for s, _ in listed if not wanted}
    missing: dict[str, str] = {}
    for name in map(str.strip, wanted):
        matching = [s for s, title in listed if name.lower() in (s.name.lower(), title.lower())]
        if not matching and _GUID.fullmatch(name):
            matching = [AzureSubscription(wire={}, id=f"/subscriptions/{name}", name=name, account=name, related={})]
        chosen |= {s.id.lower(): s for s in matching}
        if not matching:
            close = difflib.get_close_matches(name, [title for _, title in listed], n=1, cutoff=0.5)
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
    return [key for name in names if _HOST.fullmatch(name) for key in server_keys(f"https://{name}", None)]
