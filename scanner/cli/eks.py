"""Wires AWS to tasks: one finds the accounts, each of those its regions, each of those its clusters."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from providers.aws.access import api_access
from providers.aws.errors import AwsError, UsageError
from providers.aws.reader import CLUSTERS, Reader, Region, gap_of, is_unjudged
from providers.aws.session import AwsAccount, assumed, session
from scanner.aws import EksCluster
from scanner.cli.discovery import Unreadable, Wanted, look, unread_look
from scanner.cli.options import AwsScope, Discovery, Namespaces, Planes, Running
from scanner.cli.targets import Inside, Look
from scanner.clusters import server_keys
from scanner.collect import Estate, Progress, Reading, Task, unread_inventory
from scanner.config import ConfigError, Settings
from scanner.inventory import Counts, Inventory
from scanner.kube import printable
from scanner.model import Account, Cluster, Gap, GapReason, PlaneState, utc_now

if TYPE_CHECKING:
    from providers.kubernetes.credentials import ApiAccess

PROVIDER = "aws"
CONNECTIONS = 64
_REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]{2,12}){1,3}-\d{1,2}")
_ROLE = re.compile(r"arn:aws[\w-]*:iam::(\d{12}):role/[\w+=,.@/-]+")
_ROLE_NAME = re.compile(r"[\w+=,.@/-]{1,512}")


@dataclass(frozen=True)
class EksTarget:
    settings: Settings
    aws: AwsScope
    discovery: Discovery
    namespaces: Namespaces
    running: Running


@contextlib.contextmanager
def eks_tasks(target: EksTarget) -> Iterator[list[Task]]:
    """The task that finds all others. Raises ConfigError for options that cannot be used."""
    _check(target.aws)
    try:
        base = session(target.aws.aws_profile)
    except UsageError as error:
        raise ConfigError(str(error)) from None
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("boto3", "botocore"):
            raise
        raise ConfigError("the AWS SDK is not installed: pip install 'kubeposture[aws]'") from None
    aws = _Aws(target, base)
    with contextlib.closing(aws):
        yield [aws.task()]


def _check(scope: AwsScope) -> None:
    """Raises ConfigError for what cannot be a region or a role."""
    for name in scope.region:
        if not _REGION.fullmatch(name):
            raise ConfigError(f"--region {printable(name)!r} is no region: ap-northeast-2 is one")
    accounts: set[str] = set()
    for arn in dict.fromkeys(scope.role_arn):
        match = _ROLE.fullmatch(arn)
        if match is None:
            raise ConfigError(f"--role-arn {printable(arn)!r} is no role: arn:aws:iam::123456789012:role/audit is one")
        if match[1] in accounts:
            raise ConfigError(f"--role-arn names two roles of account {match[1]}: one for each account")
        accounts.add(match[1])
    if scope.organization is not None and not _ROLE_NAME.fullmatch(scope.organization):
        raise ConfigError("--organization takes the name of a role, the same in every account")


class _Aws:
    def __init__(self, target: EksTarget, base: Any) -> None:
        settings = target.settings
        self.target, self.base = target, base
        self.wanted = Wanted(target.discovery)
        self.kinds = settings.cloud_kinds() | {CLUSTERS}
        self.control_plane = target.discovery.planes is not Planes.DATA and bool(settings.cloud_kinds())
        self.reader = Reader(settings.cloud_kinds() if self.control_plane else ())
        self.inside = Inside(settings.kinds(), target.namespaces, target.running, settings.cluster_ids)
        # Whether a cluster has to be described; one may also be listed only for the report's sake.
        self.described = CLUSTERS in settings.cloud_kinds() or bool(self.inside.kinds or target.discovery.tag)
        self.accounts: list[AwsAccount] = []
        self.unlisted = 1  # lists of clusters that are not yet there, and of where those are
        self.lock = threading.Lock()

    def close(self) -> None:
        for account in self.accounts:
            account.close()

    def task(self) -> Task:
        return Task("AWS", self._find, self.kinds, PROVIDER, lambda *why: self._unread("aws", "AWS", "", *why))

    # -- accounts -----------------------------------------------------------------------------------------------------

    def _find(self, progress: Progress) -> Iterator[Reading | Task]:
        progress("accounts", 0)
        own = self._account_of(self.base)
        try:
            own.identify()
        except AwsError as error:
            yield self._unread("aws", "AWS", "", error.reason, error.detail, error.action)
            return
        for name, account in self._accounts(own):
            if isinstance(account, AwsError):
                yield self._unread(name, name, "", account.reason, account.detail, account.action)
            else:
                self._expect()
                yield self._account_task(account)
        yield from self._listed()

    def _expect(self) -> None:
        with self.lock:
            self.unlisted += 1

    def _listed(self) -> Iterator[Reading]:
        """When everything that was found is listed: names asked for that no cluster has."""
        with self.lock:
            self.unlisted -= 1
            last = not self.unlisted
        if last:
            self.wanted.unlisted = 1
            yield from self.wanted.listed(PROVIDER, self.inside.kinds or self.kinds)

    def _account_of(self, boto_session: Any) -> AwsAccount:
        account = AwsAccount(boto_session, request_timeout=self.target.running.request_timeout, connections=CONNECTIONS)
        self.accounts.append(account)
        return account

    def _accounts(self, own: AwsAccount) -> Iterator[tuple[str, AwsAccount | AwsError]]:
        """Those to be read, each by its own role, or why that cannot be assumed."""
        scope = self.target.aws
        roles = {arn.split(":")[4]: arn for arn in scope.role_arn}
        if scope.organization:
            listed, error = _organization(own)
            if error:
                yield "organization", error
            for id in listed:
                if id != own.id:
                    roles.setdefault(id, f"arn:{own.partition}:iam::{id}:role/{scope.organization}")
        if own.id not in roles and (scope.organization or not roles):
            yield own.id, own
        for id, arn in roles.items():
            account = self._account_of(assumed(own, arn, scope.external_id))
            try:
                account.identify()
            except AwsError as error:
                yield id, error
            else:
                yield account.id, account

    def _unread(self, id: str, name: str, region: str, reason: GapReason, detail: str, permission: str = "") -> Reading:
        """An account, a region of it, or all of AWS, of which nothing could be listed."""
        inventory = unread_inventory(self.kinds, reason, detail, permission)
        account = self._row(id, name, region)
        return Reading(Estate(account.name, inventory, account=account, scope=f"aws:{id}:{region}"))

    def _row(self, id: str, name: str, region: str) -> Account:
        """As long as nothing is known of its clusters."""
        asked = {True: PlaneState.COMPLETE, False: PlaneState.NOT_ASKED}
        return Account(
            id=id,
            provider=PROVIDER,
            name=f"{name} {region}".strip(),
            region=region or None,
            refused=True,
            control_plane=asked[self.control_plane],
            data_plane=asked[bool(self.inside.kinds)],
        )

    def _account_task(self, account: AwsAccount) -> Task:
        def read(progress: Progress) -> Iterator[Reading | Task]:
            regions = list(dict.fromkeys(self.target.aws.region))
            if not regions:
                found = self.reader.regions(account, account.home)
                if found.gaps:
                    gap = found.gaps[0]
                    yield self._unread(account.id, account.id, "", gap.reason, gap.detail, gap.permission)
                regions = found.items
            for region in regions:
                self._expect()
                yield self._region_task(account, region)
            yield from self._listed()

        def lost(reason: GapReason, detail: str) -> Reading:
            return self._unread(account.id, account.id, "", reason, detail)

        return Task(f"account {account.id}", read, self.kinds, PROVIDER, lost)

    # -- regions ------------------------------------------------------------------------------------------------------

    def _region_task(self, account: AwsAccount, name: str) -> Task:
        def read(progress: Progress) -> Iterator[Reading | Task]:
            started = False
            for region in self.reader.read(account, name):
                progress("resources", region.counts.read)
                if not started:
                    for cluster in region.clusters.items:
                        if self.wanted.names_match(cluster.name):
                            yield self._cluster_task(cluster, region)
                    yield from self._listed()
                    started = True
            yield self._region_reading(region)

        def lost(reason: GapReason, detail: str) -> Reading:
            return self._unread(account.id, account.id, name, reason, detail)

        return Task(f"{account.id} {name}", read, self.kinds, PROVIDER, lost)

    def _region_reading(self, region: Region) -> Reading:
        account = self._row(region.account.id, region.account.id, region.name)
        account.refused = bool(region.clusters.gaps)
        account.clusters = len(region.clusters.items)
        inventory = Inventory(kinds=sorted(self.kinds), gaps=region.gaps, counts=region.counts)
        if self.control_plane:
            inventory.cloud = [*region.repositories.items, *([region.resource] if region.resource else [])]
        scope = f"aws:{region.account.id}:{region.name}"
        return Reading(Estate(account.name, inventory, account=account, scope=scope))

    # -- clusters -----------------------------------------------------------------------------------------------------

    def _cluster_task(self, cluster: EksCluster, region: Region) -> Task:
        kinds = self.kinds if self.control_plane and self.described else frozenset()

        def read(progress: Progress) -> Iterator[Reading]:
            counts = Counts()
            if not self.described:
                yield _cluster_reading(cluster, None, kinds, counts)
                return
            description = self.reader.complete(cluster, region, counts)
            if not cluster.unread and not self.wanted.tags_match(cluster.tags):
                return
            seen = None
            if self.inside.kinds and not is_unjudged(cluster):
                seen = look(cluster, lambda: self._access(cluster, region, description), self.inside, progress)
                if not cluster.unread:
                    _name_entry(seen, cluster, region)
            keys = seen.keys if seen and seen.keys else _keys(region, description)
            yield _cluster_reading(cluster, seen, kinds, counts, keys)

        def lost(reason: GapReason, detail: str) -> Reading:
            if not cluster.wire:
                cluster.unread = Gap(what="DescribeCluster", reason=reason, detail=detail, time=utc_now())
            seen = unread_look(cluster, self.inside, reason, detail) if self.inside.kinds else None
            return _cluster_reading(cluster, seen, kinds, Counts())

        return Task(printable(cluster.name), read, self.inside.kinds, PROVIDER, lost)

    def _access(self, cluster: EksCluster, region: Region, description: dict[str, Any]) -> tuple[ApiAccess, list[str]]:
        from providers.kubernetes.credentials import ApiAccess

        if cluster.unread:
            gap = cluster.unread
            raise Unreadable(gap.reason, gap.detail, gap.permission)
        try:
            access = api_access(region.account, region.name, description)
        except AwsError as error:
            gap = gap_of("endpoint", error)
            raise Unreadable(gap.reason, gap.detail, gap.permission) from None
        return ApiAccess(access.server, access.ca, _minting(access.token)), server_keys(access.server, access.ca)


def _minting(mint: Callable[[], str]) -> Callable[[], str]:
    """With errors that the reader of an API server knows."""
    from providers.kubernetes.errors import ApiError

    def token() -> str:
        try:
            return mint()
        except AwsError as error:
            raise ApiError(error.reason, error.detail) from None

    return token


def _organization(own: AwsAccount) -> tuple[list[str], AwsError | None]:
    """The ids of its active accounts, and why there may be more."""
    found: list[str] = []
    try:
        for page in own.pages("organizations", own.home, "ListAccounts", "Accounts"):
            active = (a for a in page if a.get("State", a.get("Status")) == "ACTIVE")
            found += [str(account["Id"]) for account in active]
    except AwsError as error:
        return found, error
    except (AttributeError, KeyError):
        return found, AwsError(GapReason.BAD_DATA, "AWS listed accounts without ids")
    if not found:
        return found, AwsError(GapReason.BAD_DATA, "AWS listed no active account, which is never true")
    return found, None


def _name_entry(seen: Look, cluster: EksCluster, region: Region) -> None:
    """Where the API server lets nobody in: what would have to be created for that."""
    gaps = seen.inventory.gaps
    if seen.plane is not PlaneState.NOT_READ or not any(gap.reason is GapReason.FORBIDDEN for gap in gaps):
        return
    who, config = region.account.principal, cluster.wire.get("accessConfig")
    if isinstance(config, dict) and config.get("authenticationMode") == "CONFIG_MAP":
        needed = f"map {who} in the ConfigMap kube-system/aws-auth"
    else:
        place = f"--cluster-name {printable(cluster.name)} --region {region.name}"
        needed = f"aws eks create-access-entry {place} --principal-arn {who}, with a policy or group that may read"
    seen.inventory.gaps = [
        replace(gap, detail=f"{gap.detail}; {needed}") if gap.reason is GapReason.FORBIDDEN else gap for gap in gaps
    ]


def _keys(region: Region, description: dict[str, Any]) -> list[str]:
    """Of its API server, by which a bundle from inside is known to be of this cluster."""
    try:
        access = api_access(region.account, region.name, description)
    except AwsError:
        return []
    return server_keys(access.server, access.ca)


def _cluster_reading(
    cluster: EksCluster, seen: Look | None, kinds: frozenset[str], counts: Counts, keys: list[str] | None = None
) -> Reading:
    inventory = seen.inventory if seen else Inventory(kinds=[])
    inventory.counts.add(counts)
    row = Cluster(
        id=cluster.id,
        uid=seen.uid if seen else None,
        id_source="cloud",
        cloud_id=cluster.id,
        provider=PROVIDER,
        name=cluster.name,
        account=cluster.account,
        region=cluster.region,
        version=cluster.wire.get("version") or (seen.version if seen else None),
        tags=cluster.tags,
        data_plane=seen.plane if seen else PlaneState.NOT_ASKED,
        observed_at=utc_now(),
    )
    if kinds:
        own = [gap for what, found in cluster.related.items() if what in _PER_CLUSTER for gap in found.gaps]
        inventory.gaps = [*([cluster.unread] if cluster.unread else []), *own, *inventory.gaps]
        incomplete = any(found.gaps for found in cluster.related.values())
        row.control_plane = PlaneState.PARTIAL if incomplete else PlaneState.COMPLETE
        if cluster.unread:
            row.control_plane = PlaneState.NOT_READ
        inventory.cloud = [cluster]
        inventory.kinds = sorted({*inventory.kinds, *kinds})
    scope = seen.scope if seen else ""
    return Reading(Estate(cluster.name, inventory, row, scope=scope, keys=keys or (list(seen.keys) if seen else [])))


_PER_CLUSTER = ("nodegroups", "addons", "accessEntries", "subnets")
