"""Gathers what one scan sees and looks at, and gives it to the history when the scan is over."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from sys import intern
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from scanner.check import INVALID_OBJECT, Check
from scanner.cloud import JOINED
from scanner.config import Plan
from scanner.engine import UNCONFIGURED
from scanner.findings import finding_id
from scanner.history.lifecycle import (
    EVERYTHING,
    About,
    Change,
    Clean,
    Cover,
    Event,
    Known,
    Place,
    Seen,
    State,
    Tonight,
    Where,
    compare,
    counts,
    is_old,
)
from scanner.inventory import Inventory
from scanner.kube import KINDS, Resource
from scanner.model import Changes, Finding, Lifecycle, ParameterValue, Severity, Status
from scanner.vulnerabilities import Scans

if TYPE_CHECKING:
    from scanner.history.telling import Telling

_DIGEST = re.compile(r"sha256:[0-9a-f]{6,64}")
_OF_A_BUILD = re.compile(r"(?:image|digest|source\[.*\])$")  # in the evidence of images
_SUMMARY_ROWS = ("Cluster", "Account", "Files")
_NAMES = {kind.name for kind in KINDS.values()}


class HistoryError(Exception):
    """A history that cannot be used, and why: one sentence."""


class Snapshot(msgspec.Struct, frozen=True):
    """The history at one moment, which `generation` names. `behind` are the findings of which some sink does not know
    what is known here; None where a sink knows nothing at all. `aliases` are scopes under which a cluster goes that
    is known under another one."""

    generation: int
    known: dict[str, Known]
    last: dict[Place, int]
    behind: frozenset[str] | None = frozenset()
    aliases: frozenset[str] = frozenset()


class ScanRow(msgspec.Struct, frozen=True):
    """One scan, as the history keeps it."""

    id: str
    started_at: int
    finished_at: int
    complete: bool


class Store(Protocol):
    """Where a history is kept. All of it raises HistoryError."""

    def load(self, sinks: Iterable[str] = ()) -> Snapshot: ...

    def save(
        self,
        scan: ScanRow,
        tonight: Tonight,
        before: Snapshot,
        changes: Mapping[str, Change],
        telling: Telling | None = None,
    ) -> Mapping[str, Change]:
        """Write `changes`, or those that there are where another scan was saved since `before`, and with them what is
        to be told of them; gives what it wrote."""

    def tell(self, telling: Telling) -> None: ...

    def resolved(self, ids: Sequence[str]) -> list[dict[str, Any]]: ...


@dataclass
class Recorder:
    """`at` is the time of the scan: nothing is seen later than that, whatever a bundle says.

    `sources` are those that tell of vulnerabilities; `sources_lack` is whether one of them could not be read.
    """

    store: Store
    at: datetime
    known_exploited: bool
    telling: Telling | None = None
    tonight: Tonight = field(default_factory=Tonight)
    changes: Mapping[str, Change] = field(default_factory=dict)
    sources: set[str] = field(default_factory=set)
    sources_lack: bool = False
    nameless: set[str] = field(default_factory=set)  # scopes of clusters that go by another one when they can be told
    before: Snapshot = field(init=False)
    # Of findings that another scan has written while this one ran: as they are now, None where it looked later.
    lifecycles: dict[str, Lifecycle | None] = field(default_factory=dict)
    _params: dict[str, str] = field(default_factory=dict)  # by check: one scan has one set of them
    _last: dict[str, int] = field(default_factory=dict)  # by scope
    _of_images: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.before = self.store.load(self.telling.sinks if self.telling else ())

    @property
    def wanted(self) -> frozenset[Status]:
        """What has to be told beside what is listed: of known findings also that they are gone."""
        return frozenset(Status) if self.before.known else frozenset()

    # -- what was looked at -------------------------------------------------------------------------------------------

    def take_sources(self, scans: Scans) -> None:
        """Which sources there are decides what can be compared of images."""
        self.sources |= {*scans.asked, *(scan.source for scan in scans.scans)}
        self.sources_lack |= bool(scans.gaps)

    def cover(
        self,
        plans: Iterable[Plan],
        place: str,
        inventory: Inventory,
        observed_at: datetime,
        *,
        inside: bool,
        hidden: tuple[str, ...] = (),
        also: Iterable[str] = (),
        aliases: Iterable[str] = (),
    ) -> None:
        """What these checks look at in one place. `inside` is whether that is inside a cluster. `hidden` are the kinds
        of clusters that may be in an account that refuses to list them. `also` are scopes that this place was known
        under while nothing of it could be read, `aliases` those that it goes by where its identity cannot be read."""
        self.tonight.aliases |= dict.fromkeys(aliases, place)
        inside_lists = inside and place not in self.before.aliases  # else some of what is there was left out
        if inside and not inside_lists and inventory.counts.lists_read:
            self.nameless.add(place)
        observed = self._seconds(observed_at)
        broken = {item.resource.namespace or EVERYTHING for item in inventory.invalid}
        for plan in plans:
            check = plan.check
            cover = Cover(
                params=self._params_of(check, plan.parameters),
                observed=observed,
                asked=tuple(inventory.asked) if inside else (EVERYTHING,),
                excluded=tuple(inventory.excluded),
                refused=frozenset(broken | self._refused(plan, inventory, () if check.provider else hidden)),
                lists=inside_lists,
                configured=plan.configured,
            )
            self._cover((place, check.id), cover)
            for former in also:  # where there is nothing but lists that could not be read
                self._cover((former, check.id), msgspec.structs.replace(cover, lists=False))
        gaps = {gap.namespace for gap in inventory.gaps}
        self._cover(
            (place, INVALID_OBJECT.id),
            Cover(
                params=self._params_of(INVALID_OBJECT, ()),
                observed=observed,
                asked=tuple(inventory.asked),
                excluded=tuple(inventory.excluded),
                refused=frozenset(broken | gaps),
                lists=inside_lists,
                kinds=frozenset(KINDS[plural].name for plural in inventory.kinds if plural in KINDS),
            ),
        )

    def _cover(self, at: Place, cover: Cover) -> None:
        """Of two looks at one place the one that is older than the last night's says nothing beside one that is not."""
        last, known = self.before.last.get(at, 0), self.tonight.covers.get(at)
        if known and (known.observed < last) is not (cover.observed < last):
            self.tonight.covers[at] = max(known, cover, key=lambda each: each.observed)
        else:
            self.tonight.cover(at, cover)

    def listed(self, plans: Iterable[Plan], place: str, observed_at: datetime) -> None:
        """That an account tells of all of its clusters: what these checks do not know of a refused one is known."""
        everything = Inventory(kinds=[*KINDS], asked=[EVERYTHING])
        self.cover(plans, place, everything, observed_at, inside=False)

    def _refused(self, plan: Plan, inventory: Inventory, hidden: tuple[str, ...]) -> set[str]:
        kinds = {*inventory.kinds, *JOINED}
        lacking = not hidden and not {*plan.subjects, *plan.needs} <= kinds
        if lacking:
            return {EVERYTHING}
        return {gap.namespace for gap in inventory.gaps_of(hidden or plan.subjects)}

    def _params_of(self, check: Check, parameters: tuple[ParameterValue, ...]) -> str:
        if check.id not in self._params:
            self._params[check.id] = digest_of([(p.name, p.value) for p in parameters])
            if check.category == "vulnerability":
                self._of_images.add(check.id)
        return self._params[check.id]

    # -- what was seen ------------------------------------------------------------------------------------------------

    def take(self, finding: Finding, place: str) -> Finding:
        """A finding that is to be listed; with its lifecycle, unless its place was looked at later before, or goes by
        another name: a cluster whose identity cannot be read tonight would be new with all that is in it."""
        finding = self._with_former_id(finding, place)
        for id in (finding.id, *finding.previous_ids):
            self.tonight.clean.pop(id, None)
        seen = seen_of(finding, place, self._params[finding.check], self._seconds(finding.observed_at))
        if place in self.before.aliases and seen.about is not About.LIST:
            return finding
        self.tonight.seen[finding.id] = seen
        if place not in self.tonight.places:
            self.tonight.places[place] = where(finding)
        finding = msgspec.structs.replace(finding, lifecycle=self._lifecycle(finding, seen))
        if self.telling and not self._is_told(finding.id, seen):
            self.telling.take(finding)
        return finding

    def _with_former_id(self, finding: Finding, place: str) -> Finding:
        """With the id that it had while the identity of its cluster could not be read yet."""
        former = [alias for alias, at in self.tonight.aliases.items() if at == place and alias in self._known_places]
        if not former:
            return finding
        r = finding.resource
        thing, key = Resource(r.api_group, r.kind, r.namespace or "", r.name), r.container or ""
        if finding_id(finding.check, place, thing, key) != finding.id:
            return finding
        ids = (finding_id(finding.check, alias, thing, key) for alias in former)
        return msgspec.structs.replace(finding, previous_ids=(*finding.previous_ids, *ids))

    @cached_property
    def _known_places(self) -> frozenset[str]:
        return frozenset(row.place for row in self.before.known.values() if row.state is not State.RESOLVED)

    def _is_told(self, id: str, seen: Seen) -> bool:
        """Whether every sink knows what was seen, as far as that can be told before the scan's end, or never will."""
        known, behind = self.before.known.get(id), self.before.behind
        if seen.about is About.LIST:
            return True
        if known is None or known.state is State.RESOLVED or behind is None:
            return False
        return known.digest == seen.digest and id not in behind

    def clean(self, finding: Finding, place: str) -> None:
        """One that passes or does not apply: of use only where it is known."""
        finding = self._with_former_id(finding, place)
        for id in (finding.id, *finding.previous_ids):
            if id in self.before.known and finding.id not in self.tonight.seen:
                namespace = finding.resource.namespace or ""
                self.tonight.clean[id] = Clean(place, finding.check, namespace, self._params[finding.check])

    def _lifecycle(self, finding: Finding, seen: Seen) -> Lifecycle | None:
        if is_old(self.tonight, self.before.last, (seen.place, seen.check)):
            return None
        known = self.before.known
        row = next((known[id] for id in (finding.id, *finding.previous_ids) if id in known), None)
        opened = row is None or row.state is State.RESOLVED
        state = State.NEW if row is None else State.REOPENED if opened else State.OPEN
        first, last = row.first_seen if row else seen.observed, seen.observed
        return Lifecycle(state.value, datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC), None, None)

    def _seconds(self, time: datetime) -> int:
        return min(seconds_of(time), seconds_of(self.at))

    # -- the end ------------------------------------------------------------------------------------------------------

    def compare(self) -> None:
        """With what was known before the scan."""
        self._settle_images()
        self.changes = dict(compare(self.before.known, self.tonight, self.before.last))

    def save(self, scan: ScanRow) -> None:
        """Raises HistoryError; what is new and so on stays as it was compared then."""
        told = self.changes
        self.changes = self.store.save(scan, self.tonight, self.before, told, self.telling)
        if self.changes is not told:
            for id in self.tonight.seen:
                change = self.changes[id]
                if change != told[id]:
                    self.lifecycles[id] = change.after.lifecycle if change.after else None

    def _settle_images(self) -> None:
        """Checks of images compare with scans that asked the same sources, and say nothing where one was refused."""
        told = digest_of([sorted(self.sources), self.known_exploited])
        tonight = self.tonight
        for place, cover in tonight.covers.items():
            if place[1] in self._of_images:
                refused = cover.refused | ({EVERYTHING} if self.sources_lack else set())
                tonight.covers[place] = msgspec.structs.replace(cover, params=cover.params + told, refused=refused)
        for id, seen in tonight.seen.items():
            if seen.check in self._of_images:
                tonight.seen[id] = msgspec.structs.replace(seen, params=seen.params + told)
        for id, clean in tonight.clean.items():
            if clean.check in self._of_images:
                tonight.clean[id] = msgspec.structs.replace(clean, params=clean.params + told)

    def resolved(self, catalogue: Mapping[str, Check], scan_id: str) -> list[Finding]:
        """What this scan has resolved, with what is left to say of it. Raises HistoryError."""
        from scanner.history.telling import closed_finding

        ids = sorted(id for id, change in self.changes.items() if change.event is Event.RESOLVED)
        return [closed_finding(row, scan_id, catalogue) for row in self.store.resolved(ids)]

    def last_look(self, place: str) -> int:
        """When a scope was looked at last before this scan, 0 where it never was."""
        if not self._last:
            for (at, _), seconds in self.before.last.items():
                self._last[at] = max(seconds, self._last.get(at, 0))
        return self._last.get(place, 0)

    @property
    def counts(self) -> Changes:
        return Changes(**counts(self.changes))

    def failing(self, worst: Severity) -> int:
        """Findings of this severity or worse that fail, and did not the last time, exempted ones left out."""
        return sum(
            change.fails and Severity(self.tonight.seen[id].severity).rank <= worst.rank
            for id, change in self.changes.items()
        )


def seconds_of(time: datetime) -> int:
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def digest(finding: Finding) -> str:
    """Of what makes a finding a changed one: not how often it occurs, nor which build of an image shows it or when that
    was scanned."""
    note = finding.exemption and [finding.exemption.reason, finding.exemption.owner, finding.exemption.expires]
    told = (e for e in finding.evidence if finding.category != "vulnerability" or not _OF_A_BUILD.match(e.path))
    evidence = [[e.path, _DIGEST.sub("", e.value), e.default] for e in told]
    return digest_of([finding.status, finding.severity, finding.reason, note, evidence])


def digest_of(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:16]


def _about(finding: Finding) -> About:
    r = finding.resource
    if r.name == "*" and r.kind not in _NAMES:
        return About.LIST
    unset = finding.reason == UNCONFIGURED and r.kind in _SUMMARY_ROWS and not r.api_group
    return About.PARAMETER if unset else About.OBJECT


def where(finding: Finding) -> Where:
    cluster = finding.cluster
    return Where(
        provider=finding.provider,
        account=finding.account or "",
        region=finding.region or "",
        cluster_id=cluster.id if cluster else "",
        cluster_uid=(cluster.uid or "") if cluster else "",
        cluster=cluster.name if cluster else "",
    )


def seen_of(finding: Finding, place: str, params: str, observed: int) -> Seen:
    r, cluster = finding.resource, finding.cluster
    fails = finding.status is Status.FAIL and not finding.exemption and finding.reason != UNCONFIGURED
    return Seen(
        check=finding.check,
        place=intern(place),
        namespace=intern(r.namespace or ""),
        kind=intern(r.kind),
        name=r.name,
        container=r.container or "",
        cluster=cluster.name if cluster else "",
        account=finding.account or "",
        severity=finding.severity.value,
        status=finding.status.value,
        reason=finding.reason,
        exempted=finding.exemption is not None,
        about=_about(finding),
        params=params,
        digest=digest(finding),
        observed=observed,
        fails=fails,
        api_group=intern(r.api_group),
        cloud_id=r.cloud_id or "",
        previous_ids=finding.previous_ids,
    )
