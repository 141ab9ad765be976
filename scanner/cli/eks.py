"""Wires AWS to tasks: one finds the accounts, each of those its regions, each of those its clusters."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from providers.aws.access import api_access
from providers.aws.errors import AwsError, UsageError, gap_of
from providers.aws.reader import CLUSTERS, PER_CLUSTER, Reader, Region
from providers.aws.session import AwsAccount, assumed, session
from scanner.aws import DEFENDER_ROLES, EksCluster
from scanner.cli.discovery import Asked, Cloud, Unreadable, advise, minting
from scanner.cli.options import AwsScope
from scanner.clusters import server_keys
from scanner.collect import Progress, Reading, Task
from scanner.config import ConfigError
from scanner.inventory import Counts
from scanner.kube import printable
from scanner.model import Gap, GapReason, utc_now
from scanner.resources import AnyResource

if TYPE_CHECKING:
    from providers.kubernetes.credentials import ApiAccess

PROVIDER = "aws"
CONNECTIONS = 64
ALL_CLOSED = "a service control policy closes every region of the account, so that nothing of it was seen"
# Of accounts of an organization that are not active; whatever else AWS may say of one is not known to be that.
_NOT_ACTIVE = ("PENDING_ACTIVATION", "SUSPENDED", "PENDING_CLOSURE", "CLOSED")
_REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]{2,12}){1,3}-\d{1,2}")
_ROLE = re.compile(r"arn:aws[\w-]*:iam::(\d{12}):role/[\w+=,.@/-]+")
_ROLE_NAME = re.compile(r"[\w+=,.@/-]{1,512}")


@contextlib.contextmanager
def eks_tasks(scope: AwsScope, asked: Asked) -> Iterator[list[Task]]:
    """The task that finds all others. Raises ConfigError for options that cannot be used."""
    _check(scope)
    cloud = Cloud(PROVIDER, CLUSTERS, PER_CLUSTER, asked)
    try:
        base = session(scope.aws_profile)
    except UsageError as error:
        raise ConfigError(str(error)) from None
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("boto3", "botocore"):
            raise
        raise ConfigError("the AWS SDK is not installed: pip install 'kubeposture[aws]'") from None
    wanted = [p.values.get("role_names", DEFENDER_ROLES) for p in asked.settings.plans if "defenderRoles" in p.needs]
    roles = dict.fromkeys(name for names in wanted for name in names)
    reader = Reader(cloud.asked, defender_roles=roles, scans=asked.settings.needs_scans)
    aws = _Aws(scope, cloud, reader, base)
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


class _Regions:
    """Of one account: how many are still to be read, and whether any of the others is open."""

    def __init__(self, count: int) -> None:
        self._left, self._open = count, False
        self._lock = threading.Lock()

    def all_closed(self, closed: bool) -> bool:
        """To be called once for each region; true only for the last one."""
        with self._lock:
            self._left -= 1
            self._open = self._open or not closed
            return not (self._left or self._open)


class _Aws:
    def __init__(self, scope: AwsScope, cloud: Cloud, reader: Reader, base: Any) -> None:
        self.scope, self.cloud, self.reader, self.base = scope, cloud, reader, base
        # Whether a cluster has to be described; one may also be listed only for the report's sake.
        self.described = CLUSTERS in cloud.asked or bool(cloud.inside.kinds or cloud.wanted.tags)
        self.accounts: list[AwsAccount] = []

    def close(self) -> None:
        for account in self.accounts:
            account.close()

    def task(self) -> Task:
        return Task("AWS", self._find, self.cloud.kinds, PROVIDER, lambda *why: self._unread("aws", "AWS", "", *why))

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
                self.cloud.wanted.expect()
                yield self._account_task(account)
        yield from self.cloud.listed()

    def _account_of(self, boto_session: Any) -> AwsAccount:
        account = AwsAccount(
            boto_session, request_timeout=self.cloud.inside.running.request_timeout, connections=CONNECTIONS
        )
        self.accounts.append(account)
        return account

    def _accounts(self, own: AwsAccount) -> Iterator[tuple[str, AwsAccount | AwsError]]:
        """Those to be read, each by its own role, or why that cannot be assumed."""
        scope = self.scope
        roles = {arn.split(":")[4]: arn for arn in scope.role_arn}
        if scope.organization:
            listed, error = _organization(own)
            if error:
                yield "organization", error
            for id, state in listed.items():
                if state == "ACTIVE" and id != own.id:
                    roles.setdefault(id, f"arn:{own.partition}:iam::{id}:role/{scope.organization}")
                elif state not in ("ACTIVE", *_NOT_ACTIVE) and id not in (own.id, *roles):
                    yield id, AwsError(GapReason.BAD_DATA, "AWS did not say whether this account is active")
        if own.id not in roles and (scope.organization or not roles):
            yield own.id, own
        for id, arn in roles.items():
            account = self._account_of(assumed(own, arn, scope.external_id))
            try:
                account.identify()
            except AwsError as error:
                yield id, error
            else:
                account.principal = arn  # with its path, which AWS does not tell
                yield account.id, account

    def _unread(self, id: str, name: str, region: str, reason: GapReason, detail: str, permission: str = "") -> Reading:
        """An account, a region of it, or all of AWS, of which nothing could be listed."""
        account = self.cloud.account(id, name, region)
        return self.cloud.unread_account(account, f"aws:{id}:{region}", reason, detail, permission)

    def _account_task(self, account: AwsAccount) -> Task:
        def read(progress: Progress) -> Iterator[Reading | Task]:
            regions = list(dict.fromkeys(self.scope.region))
            if not regions:
                found = self.reader.regions(account, account.home)
                if found.gaps:
                    gap = found.gaps[0]
                    yield self._unread(account.id, account.id, "", gap.reason, gap.detail, gap.permission)
                regions = found.items
            still = _Regions(len(regions))
            for region in regions:
                self.cloud.wanted.expect()
                yield self._region_task(account, region, still)
            yield from self.cloud.listed()

        def lost(reason: GapReason, detail: str) -> Reading:
            return self._unread(account.id, account.id, "", reason, detail)

        return Task(f"account {account.id}", read, self.cloud.kinds, PROVIDER, lost)

    # -- regions ------------------------------------------------------------------------------------------------------

    def _region_task(self, account: AwsAccount, name: str, still: _Regions) -> Task:
        def read(progress: Progress) -> Iterator[Reading | Task]:
            started = False
            for region in self.reader.read(account, name):
                progress("resources", region.counts.read)
                if not started:
                    for cluster in region.clusters.items:
                        if self.cloud.wanted.names_match(cluster.name):
                            if self.cloud.wanted.tags:  # known when it is described
                                self.cloud.wanted.expect()
                            yield self._cluster_task(account, cluster, region)
                    yield from self.cloud.listed()
                    started = True
            closed = region.closed and name not in self.scope.region
            yield region_reading(self.cloud, region, closed=closed)
            if still.all_closed(closed):
                yield self._unread(account.id, account.id, "", GapReason.FORBIDDEN, ALL_CLOSED)

        def lost(reason: GapReason, detail: str) -> Reading:
            return self._unread(account.id, account.id, name, reason, detail)

        return Task(f"{account.id} {name}", read, self.cloud.kinds, PROVIDER, lost)

    # -- clusters -----------------------------------------------------------------------------------------------------

    def _cluster_task(self, account: AwsAccount, cluster: EksCluster, region: Region) -> Task:
        cloud = self.cloud

        def read(progress: Progress) -> Iterator[Reading]:
            counts = Counts()
            description = self.reader.complete(cluster, region, counts) if self.described else {}
            if cloud.wanted.tags_match(None if cluster.unread else cluster.tags):
                look = None
                if cloud.inside.kinds and cluster.lives:
                    look = cloud.look(cluster, lambda: self._access(account, cluster, description), progress)
                    if not cluster.unread:
                        advise(look, (GapReason.FORBIDDEN,), _entry(account, cluster))
                keys = _keys(account, cluster, description)
                yield cloud.reading(cluster, look, counts, version=_version(cluster), keys=keys)
            if cloud.wanted.tags:
                yield from cloud.listed()

        def lost(reason: GapReason, detail: str) -> Reading:
            if not cluster.wire:
                cluster.unread = Gap(what="DescribeCluster", reason=reason, detail=detail, time=utc_now())
            look = cloud.unread_look(cluster, reason, detail) if cloud.inside.kinds else None
            return cloud.reading(cluster, look, Counts(), version=_version(cluster))

        return Task(printable(cluster.name), read, cloud.inside.kinds, PROVIDER, lost)

    def _access(
        self, account: AwsAccount, cluster: EksCluster, description: dict[str, Any]
    ) -> tuple[ApiAccess, list[str]]:
        from providers.kubernetes.credentials import ApiAccess

        if cluster.unread:
            gap = cluster.unread
            raise Unreadable(gap.reason, gap.detail, gap.permission)
        try:
            access = api_access(account, str(cluster.region), description)
        except AwsError as error:
            gap = gap_of("endpoint", error)
            raise Unreadable(gap.reason, gap.detail, gap.permission) from None
        return ApiAccess(access.server, access.ca, minting(access.token)), server_keys(access.server, access.ca)


def region_reading(cloud: Cloud, region: Region, *, closed: bool) -> Reading:
    """What is judged of a region itself; its clusters come one by one."""
    account = cloud.account(region.account.id, region.account.id, region.name)
    account.closed = closed
    judged: list[AnyResource] = [*region.repositories.items, *([region.resource] if region.resource else [])]
    reading = cloud.account_reading(account, region, judged, f"aws:{region.account.id}:{region.name}")
    reading.estate.scans = region.scans
    return reading


def _organization(own: AwsAccount) -> tuple[dict[str, str], AwsError | None]:
    """The state of each of its accounts by id, "" where AWS does not tell it, and why there may be more."""
    found: dict[str, str] = {}
    try:
        for page in own.pages("organizations", own.home, "ListAccounts", "Accounts"):
            found |= {str(a["Id"]): str(a.get("State") or a.get("Status") or "") for a in page}
    except AwsError as error:
        return found, error
    except (AttributeError, KeyError, TypeError):
        return found, AwsError(GapReason.BAD_DATA, "AWS listed accounts without ids")
    if "ACTIVE" not in found.values():
        return found, AwsError(GapReason.BAD_DATA, "AWS listed no active account, which is never true")
    return found, None


def _entry(account: AwsAccount, cluster: EksCluster) -> str:
    """What would have to be created where the API server lets nobody in."""
    who, config = account.principal, cluster.wire.get("accessConfig")
    if isinstance(config, dict) and config.get("authenticationMode") == "CONFIG_MAP":
        return f"map {_without_path(who)} in the ConfigMap kube-system/aws-auth"
    if ":role/AWSReservedSSO_" in who:
        who += " (with its path, below aws-reserved/sso.amazonaws.com/)"
    place = f"--cluster-name {printable(cluster.name)} --region {cluster.region}"
    return f"aws eks create-access-entry {place} --principal-arn {who}, with a policy or group that may read"


def _without_path(principal: str) -> str:
    """As aws-auth wants roles."""
    start, role, name = principal.partition(":role/")
    return f"{start}{role}{name.rpartition('/')[2]}"


def _keys(account: AwsAccount, cluster: EksCluster, description: dict[str, Any]) -> list[str]:
    """Of its API server, by which a bundle from inside is known to be of this cluster."""
    try:
        access = api_access(account, str(cluster.region), description)
    except AwsError:
        return []
    return server_keys(access.server, access.ca)


def _version(cluster: EksCluster) -> str:
    version = cluster.wire.get("version")
    return version if isinstance(version, str) else ""
