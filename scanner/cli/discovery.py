"""What `scan` of every cloud does alike: which clusters are asked for, looks inside, rows and readings."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol

from msgspec.structs import replace

from scanner.cli.options import Discovery, Namespaces, Planes, Running
from scanner.cli.targets import Inside, Look, look_inside
from scanner.cloud import CloudResource, scope_id
from scanner.collect import Estate, Progress, Reading, unread, unread_inventory
from scanner.config import ConfigError, Settings
from scanner.inventory import Counts, Inventory
from scanner.model import Account, Cluster, Collected, Gap, GapReason, MissingEvidence, PlaneState, utc_now
from scanner.resources import AnyResource
from scanner.vulnerabilities import Scans

if TYPE_CHECKING:
    from providers.kubernetes.credentials import ApiAccess

_ASKED = {True: PlaneState.COMPLETE, False: PlaneState.NOT_ASKED}


class Wanted:
    """--cluster and --tag. Remembers what of them was found, so that misspelt ones can be told."""

    def __init__(self, discovery: Discovery) -> None:
        for tag in discovery.tag:
            if not tag.partition("=")[0].strip():  # no cluster has it, so all would be clean
                raise ConfigError(f"--tag {tag!r} names no tag: KEY or KEY=VALUE")
        self.names, self.tags = discovery.cluster, discovery.tag
        self._unmatched = set(discovery.cluster)
        self._tag_unmatched = bool(discovery.tag)
        self._unlisted = 1  # what may still show clusters: the search itself, then each list that it finds
        self._lock = threading.Lock()

    def names_match(self, name: str) -> bool:
        matching = [pattern for pattern in self.names if fnmatchcase(name.lower(), pattern.lower())]
        self._unmatched.difference_update(matching)
        return bool(matching or not self.names)

    def tags_match(self, tags: dict[str, str] | None) -> bool:
        """None where they could not be read: such a cluster may have any."""
        have = {key.lower(): value for key, value in (tags or {}).items()}  # Azure does not tell the case of a name
        for wanted in () if tags is None else self.tags:
            key, equals, value = wanted.partition("=")
            if key.lower() not in have or (equals and have[key.lower()] != value):
                return False
        self._tag_unmatched = False
        return True

    def expect(self) -> None:
        """To be called for each list that `listed` will be called for."""
        with self._lock:
            self._unlisted += 1

    def listed(self, provider: str, kinds: Iterable[str]) -> Iterator[Reading]:
        """After the last list: names and tags asked for that no cluster has."""
        with self._lock:
            self._unlisted -= 1
            if self._unlisted:
                return
        for name in sorted(self._unmatched):
            detail = f"no cluster that this identity sees is named {name!r}"
            yield unread(name, provider, kinds, GapReason.NOT_FOUND, detail)
        if self._tag_unmatched:
            detail = "no cluster that this identity sees has these tags"
            yield unread(" ".join(self.tags), provider, kinds, GapReason.NOT_FOUND, detail)


class Unreadable(Exception):
    """Why there is no way into a cluster; `keys` is what is known of its API server all the same."""

    def __init__(self, reason: GapReason, detail: str, permission: str = "", keys: Iterable[str] = ()) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.permission, self.keys = reason, detail, permission, tuple(keys)


class Found(Protocol):
    """What a cloud's reader found in an account, or in a region of it."""

    @property
    def clusters(self) -> Collected[Any]: ...
    @property
    def gaps(self) -> list[Gap]: ...
    @property
    def counts(self) -> Counts: ...


@dataclass(frozen=True)
class Asked:
    """What every cloud's command takes."""

    settings: Settings
    discovery: Discovery
    namespaces: Namespaces
    running: Running


class Cloud:
    """What is asked of one cloud, and the rows and readings that its answers become.

    `clusters` is the kind of its clusters; `own` names what is asked beside each cluster alone: the gaps of what is
    asked once for many are told by their account.
    """

    def __init__(self, provider: str, clusters: str, own: Collection[str], asked: Asked) -> None:
        settings, kinds = asked.settings, asked.settings.cloud_kinds(provider)
        self.provider, self.own = provider, own
        self.wanted = Wanted(asked.discovery)
        self.kinds = kinds | {clusters}
        self.control_plane = asked.discovery.planes is not Planes.DATA and bool(kinds)
        self.asked = kinds if self.control_plane else frozenset()
        inside = settings.kinds()
        agents = settings.needs_agents and asked.discovery.planes is not Planes.CONTROL
        if agents:
            inside |= {"namespaces"}
        self.inside = Inside(
            inside, asked.namespaces, asked.running, settings.cluster_ids, agents, settings.needs_scans
        )

    # -- accounts -----------------------------------------------------------------------------------------------------

    def account(self, id: str, name: str, region: str = "") -> Account:
        """As long as nothing is known of its clusters."""
        return Account(
            id=id,
            provider=self.provider,
            name=f"{name} {region}".strip(),
            region=region or None,
            refused=True,
            control_plane=_ASKED[self.control_plane],
            data_plane=_ASKED[bool(self.inside.kinds)],
        )

    def unread_account(
        self, account: Account, scope: str, reason: GapReason, detail: str, permission: str = ""
    ) -> Reading:
        """An account, a region of it, or all of the cloud, of which nothing could be listed."""
        inventory = unread_inventory(self.kinds, reason, detail, permission)
        return Reading(Estate(account.name, inventory, account=account, scope=scope))

    def account_reading(self, account: Account, found: Found, judged: list[AnyResource], scope: str) -> Reading:
        """An account, or a region of it, with what is judged of it; its clusters come one by one."""
        account.refused = bool(found.clusters.gaps)
        account.clusters = len(found.clusters.items)
        inventory = Inventory(kinds=sorted(self.kinds), gaps=found.gaps, counts=found.counts)
        if self.control_plane:
            inventory.cloud = judged
        return Reading(Estate(account.name, inventory, account=account, scope=scope))

    def listed(self) -> Iterator[Reading]:
        return self.wanted.listed(self.provider, self.inside.kinds or self.kinds)

    # -- clusters -----------------------------------------------------------------------------------------------------

    def look(
        self, cluster: CloudResource, access: Callable[[], tuple[ApiAccess, list[str]]], progress: Progress
    ) -> Look:
        """What runs in a cluster, or the gaps in place of that. `access` gives the way in and the API server's keys, or
        raises Unreadable."""
        from providers.kubernetes.errors import ApiError
        from providers.kubernetes.errors import ConfigError as Unusable

        keys: list[str] = []
        try:
            api, keys = access()
            # By its id, as the configuration's cluster_ids may mean but one of two clusters of one name.
            look = look_inside(api, scope_id(cluster.id), self.inside, progress)
            # What it says of an Arc connection makes no row its own: it could claim that of another cluster.
            return dataclasses.replace(look, keys=[key for key in look.keys if not key.startswith("id:")])
        except Unreadable as why:
            reason, detail, permission, keys = why.reason, why.detail, why.permission, list(why.keys)
        except ApiError as error:
            reason, detail, permission = error.reason, error.detail, ""
        except Unusable as error:
            reason, detail, permission = GapReason.NOT_CONFIGURED, str(error), ""
        except MissingEvidence as missing:
            reason, detail, permission = missing.gaps[0].reason, missing.gaps[0].sentence, ""
        return self.unread_look(cluster, reason, detail, permission, keys)

    def unread_look(
        self, cluster: CloudResource, reason: GapReason, detail: str, permission: str = "", keys: Iterable[str] = ()
    ) -> Look:
        inventory = unread_inventory(self.inside.kinds, reason, detail, permission)
        scope = self.inside.cluster_ids.get(scope_id(cluster.id), "")
        return Look(inventory, None, None, scope, "config", list(keys), PlaneState.NOT_READ)

    def reading(
        self, cluster: AnyResource, look: Look | None, counts: Counts, *, version: str = "", keys: Iterable[str] = ()
    ) -> Reading:
        """A cluster with what runs inside, None if that was not asked for. `version` and `keys` are what the cloud says
        of it."""
        inventory = look.inventory if look else Inventory(kinds=[])
        inventory.counts.add(counts)
        row = Cluster(
            id=scope_id(cluster.id),
            uid=look.uid if look else None,
            id_source="cloud",
            cloud_id=cluster.id,
            provider=self.provider,
            name=cluster.name,
            account=cluster.account,
            region=cluster.region,
            version=version or (look.version if look else None),
            tags=cluster.tags,
            control_plane=_plane(cluster) if self.control_plane else PlaneState.NOT_ASKED,
            data_plane=look.plane if look else PlaneState.NOT_ASKED,
            observed_at=utc_now(),
        )
        if self.control_plane:
            own = [gap for what in self.own if what in cluster.related for gap in cluster.related[what].gaps]
            inventory.gaps = [*([cluster.unread] if cluster.unread else []), *own, *inventory.gaps]
            inventory.cloud = [cluster]
            inventory.kinds = sorted({*inventory.kinds, *self.kinds})
        every = list(dict.fromkeys([*keys, *(look.keys if look else ())]))
        return Reading(
            Estate(
                cluster.name,
                inventory,
                row,
                scope=look.scope if look else "",
                keys=every,
                former=[look.server] if look and look.server and look.server != look.scope else [],
                agents=look.agents if look else {},
                scans=look.scans if look else Scans(),
            )
        )


def advise(look: Look, reasons: Collection[GapReason], hint: str) -> None:
    """Where nobody was let in, or nobody answered: say in each gap what to do about it."""
    if hint and look.plane is PlaneState.NOT_READ:
        look.inventory.gaps = [
            replace(gap, detail=f"{gap.detail}; {hint}") if gap.reason in reasons else gap
            for gap in look.inventory.gaps
        ]


def minting(mint: Callable[[], str]) -> Callable[[], str]:
    """What mints tokens for an API server, with a cloud's errors turned into those that its reader knows."""
    from providers.errors import CloudError
    from providers.kubernetes.errors import ApiError

    def token() -> str:
        try:
            return mint()
        except CloudError as error:
            raise ApiError(error.reason, error.detail) from None

    return token


def _plane(cluster: CloudResource) -> PlaneState:
    if cluster.unread:
        return PlaneState.NOT_READ
    incomplete = any(found.gaps for found in cluster.related.values())
    return PlaneState.PARTIAL if incomplete else PlaneState.COMPLETE
