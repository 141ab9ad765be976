"""Wires Azure to tasks: one finds the subscriptions, each of those its clusters, each of those is read on its own."""

from __future__ import annotations

import contextlib
import difflib
import functools
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeGuard

from providers.azure import images
from providers.azure.access import ACTION, api_server
from providers.azure.credentials import CLOUDS
from providers.azure.errors import ArmError, UsageError
from providers.azure.reader import PER_CLUSTER, Reader, Subscription, gap_of
from providers.azure.session import Session
from scanner.azure import AksCluster, ArcCluster, AzureSubscription
from scanner.cli.discovery import Asked, Cloud, Unreadable, minting
from scanner.cli.options import AzureScope
from scanner.cli.targets import Look
from scanner.cloud import CloudResource, scope_id
from scanner.clusters import server_keys
from scanner.collect import Estate, Progress, Reading, Task
from scanner.config import ConfigError
from scanner.inventory import Counts, Inventory
from scanner.kube import printable
from scanner.model import Account, GapReason, MissingEvidence
from scanner.resources import AnyResource
from scanner.vulnerabilities import Scans

if TYPE_CHECKING:
    from providers.kubernetes.credentials import ApiAccess

PROVIDER = "azure"
CONNECTIONS = 64
_HOST = re.compile(r"[\w.-]+")
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@contextlib.contextmanager
def aks_tasks(scope: AzureScope, asked: Asked) -> Iterator[list[Task]]:
    """The task that finds all others. Raises ConfigError for options that cannot be used."""
    cloud = Cloud(PROVIDER, AksCluster.kind, PER_CLUSTER, asked)
    try:
        session = Session(
            CLOUDS[scope.cloud],
            tenant=scope.tenant,
            endpoint=scope.arm_endpoint,
            request_timeout=asked.running.request_timeout,
            connections=CONNECTIONS,
        )
    except UsageError as error:
        raise ConfigError(str(error)) from None
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("azure"):
            raise
        raise ConfigError("the Azure SDK is not installed: pip install 'kubeposture[azure]'") from None
    with contextlib.closing(session):
        yield [_Azure(scope, cloud, session, asked.settings.needs_scans).task()]


class _Azure:
    def __init__(self, scope: AzureScope, cloud: Cloud, session: Session, needs_scans: bool) -> None:
        self.scope, self.cloud, self.session, self.needs_scans = scope, cloud, session, needs_scans
        self.reader = Reader(session, cloud.asked)

    # -- subscriptions ------------------------------------------------------------------------------------------------

    def task(self) -> Task:
        return Task("Azure", self._find, self.cloud.kinds, PROVIDER, lambda *why: self._unread("azure", "Azure", *why))

    def _find(self, progress: Progress) -> Iterator[Reading | Task]:
        progress("subscriptions", 0)
        try:
            self.session.log_in()
        except ArmError as error:
            yield self._unread("azure", "Azure", error.reason, error.detail)
            return
        found = self.reader.subscriptions()
        chosen, missing = _chosen(found.items, self.scope.subscription)
        if found.gaps and (not self.scope.subscription or missing):
            gap = found.gaps[0]
            yield self._unread("azure", "Azure", gap.reason, gap.detail, gap.permission)
        elif not chosen and not self.scope.subscription:
            detail = "this identity sees no subscription: give it a role in one, or name its tenant with --tenant"
            yield self._unread("azure", "Azure", GapReason.FORBIDDEN, detail, "Microsoft.Resources/subscriptions/read")
        for name, detail in missing.items():
            yield self._unread(name, name, GapReason.NOT_FOUND, detail)
        for subscription in chosen:
            self.cloud.wanted.expect()
            yield self._subscription_task(subscription)
        if chosen and self.needs_scans:
            yield self._defender_task(chosen)
        yield from self.cloud.listed()

    def _unread(self, id: str, name: str, reason: GapReason, detail: str, permission: str = "") -> Reading:
        """A subscription, or all of Azure, of which nothing could be listed."""
        account = self.cloud.account(id, name)
        return self.cloud.unread_account(account, f"/subscriptions/{id}".lower(), reason, detail, permission)

    def _subscription_task(self, subscription: AzureSubscription) -> Task:
        id = subscription.name
        name = _text(subscription, "displayName") or id

        def read(progress: Progress) -> Iterator[Reading | Task]:
            started = False
            for found in self.reader.read(subscription):
                progress("resources", found.counts.read)
                if not started:
                    yield from self._cluster_tasks(found)
                    yield from self.cloud.listed()
                    started = True
            yield account_reading(self.cloud, found, self.cloud.account(id, name))

        title = f"subscription {printable(name)}"
        return Task(title, read, self.cloud.kinds, PROVIDER, lambda *why: self._unread(id, name, *why))

    def _defender_task(self, subscriptions: list[AzureSubscription]) -> Task:
        """What Defender found in images, of all subscriptions together."""
        by_name = {subscription.name: subscription for subscription in subscriptions}

        def read(progress: Progress) -> Iterator[Reading]:
            scans = images.read(
                self.session,
                by_name,
                lambda name: self.reader.permissions(by_name[name].id, Counts()),
                images.REGISTRIES[self.scope.cloud],
                lambda rows: progress("findings", rows),
            )
            if scans.asked:
                yield scans_reading(scans)

        return Task(images.NAME, read, frozenset(), PROVIDER, lambda *why: scans_reading(images.unread(*why)))

    # -- clusters -----------------------------------------------------------------------------------------------------

    def _cluster_tasks(self, found: Subscription) -> Iterator[Task]:
        wanted = self.cloud.wanted
        clusters: list[AksCluster | ArcCluster] = [*found.clusters.items, *found.arc.items]
        for cluster in clusters:
            if wanted.names_match(cluster.name) and wanted.tags_match(cluster.tags):
                yield self._cluster_task(cluster, found)

    def _cluster_task(self, cluster: AksCluster | ArcCluster, found: Subscription) -> Task:
        def read(progress: Progress) -> Iterator[Reading]:
            counts = Counts()
            if self.cloud.control_plane:
                self.reader.complete(cluster, found, counts)
            look = None
            if self._has_inside(cluster):
                look = self.cloud.look(cluster, functools.partial(self._access, cluster), progress)
            yield cluster_reading(self.cloud, cluster, look, counts)

        def lost(reason: GapReason, detail: str) -> Reading:
            if self.cloud.control_plane:
                self.reader.give_up(cluster, reason, detail)
            look = self.cloud.unread_look(cluster, reason, detail) if self._has_inside(cluster) else None
            return cluster_reading(self.cloud, cluster, look, Counts())

        return Task(printable(cluster.name), read, self.cloud.inside.kinds, PROVIDER, lost)

    def _has_inside(self, cluster: CloudResource) -> TypeGuard[AksCluster]:
        """Whether there is an inside to be read: asked for, and an AKS cluster that lives."""
        return bool(self.cloud.inside.kinds) and isinstance(cluster, AksCluster) and cluster.lives

    def _access(self, cluster: AksCluster) -> tuple[ApiAccess, list[str]]:
        from providers.kubernetes.credentials import ApiAccess

        if cluster.text("properties.powerState.code").equals("Stopped"):
            raise Unreadable(GapReason.UNREACHABLE, "the cluster is stopped")
        keys: list[str] = []
        try:
            server = api_server(self.session, cluster)
            keys = server_keys(server.url, server.ca)
            access = server.access(self.session, allow_local_account=self.scope.allow_local_account)
        except ArmError as error:
            gap = gap_of("credentials", error, ACTION)
            raise Unreadable(gap.reason, gap.detail, gap.permission, keys) from None
        token = minting(access.token) if access.token else None
        return ApiAccess(server.url, server.ca, token, certificate=access.certificate), keys


def cluster_reading(cloud: Cloud, cluster: AksCluster | ArcCluster, look: Look | None, counts: Counts) -> Reading:
    return cloud.reading(cluster, look, counts, version=_version(cluster), keys=_addresses(cluster))


def account_reading(cloud: Cloud, found: Subscription, account: Account) -> Reading:
    """What is judged of a subscription itself; its clusters come one by one."""
    judged: list[AnyResource] = [found.resource, *found.registries.items, *found.connectors.items]
    return cloud.account_reading(account, found, judged, scope_id(found.resource.id))


def scans_reading(scans: Scans) -> Reading:
    """What is said of images alone: they may be of several accounts, and run in any cluster."""
    return Reading(Estate(images.NAME, Inventory(kinds=[]), scans=scans))


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


def _text(cluster: CloudResource, path: str) -> str:
    try:
        return cluster.text(path).value
    except MissingEvidence:
        return ""


def _version(cluster: CloudResource) -> str:
    names = ("currentKubernetesVersion", "kubernetesVersion")
    return next((version for name in names if (version := _text(cluster, f"properties.{name}"))), "")


def _addresses(cluster: CloudResource) -> list[str]:
    """What a kubeconfig of this cluster would have in common with it."""
    names = [_text(cluster, f"properties.{field}") for field in ("fqdn", "privateFQDN")]
    return [key for name in names if _HOST.fullmatch(name) for key in server_keys(f"https://{name}", None)]
