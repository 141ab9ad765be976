"""Judges images when every source and every cluster has been read: any source may know what any cluster runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from checks.images.rule import Rule, current
from scanner.azure import ContainerRegistry
from scanner.check import IMAGES
from scanner.clusters import Row
from scanner.collect import Estate
from scanner.config import Plan
from scanner.image_join import Images, holds
from scanner.images import Group, RegistryImage, RunningContainer
from scanner.inventory import Inventory, Root
from scanner.model import Account, Finding, Gap, GapReason, PlaneState
from scanner.running import Packed, merged
from scanner.scope import excludes
from scanner.vulnerabilities import SOURCES, Platform
from scanner.vulnerable import Told, Vulnerable

NO_SOURCE = (
    "no source tells of them: give files of Trivy or Grype with --vulnerabilities, install trivy-operator, or have the "
    "cloud scan images"
)
INSPECTOR = "inspector"
Place = tuple[str | None, str | None]  # account and region
_CLOUDS = ("azure", "aws", "gcp")
# After one of these nothing more is asked of a registry; others are about one repository.
_OF_ALL = (GapReason.UNREACHABLE, GapReason.TIMEOUT, GapReason.THROTTLED, GapReason.SERVER_ERROR)


# Registry, repository and digest of an image -> its platforms, why they are not known, or None if it has but one.
IndexOf = Callable[[str, str, str], list[Platform] | Gap | None]


class Evaluate(Protocol):
    """Judges an estate under a scope, with the plans and images given, as a part that is judged once."""

    def __call__(
        self,
        estate: Estate,
        scope_id: str,
        row: Row | None,
        plans: tuple[Plan, ...],
        part: str,
        images: Iterable[Group],
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class _Inside:
    """What runs in a cluster: all clusters wait for the last source."""

    row: Row
    scope: str
    estate: Estate
    running: Packed
    told: bool  # whether an operator inside tells of it


@dataclass(frozen=True, slots=True)
class _Holder:
    """An account whose registries are judged: its row, and why it may have images that nobody told of."""

    account: Account
    scope: str
    gaps: list[Gap]
    complete: bool  # every image of it is known
    registries: tuple[str, ...] = ()  # names of those whose images their cloud does not list


@dataclass(slots=True)
class ImageJudging:
    """Takes every estate, and judges when the last one is there."""

    plans: tuple[Plan, ...]
    images: Images
    insides: list[_Inside] = field(default_factory=list)
    holders: dict[Place, _Holder] = field(default_factory=dict)
    unfit: list[tuple[str, str]] = field(
        default_factory=list
    )  # clusters that no selected check is about, and their cloud
    asked: set[str] = field(default_factory=set)  # registries
    _looks: int = 0
    _parts: dict[int, set[tuple[str, str]]] = field(default_factory=dict)  # of registries, by row

    @classmethod
    def of(cls, plans: Iterable[Plan], as_of: datetime, known_exploited: frozenset[str]) -> ImageJudging:
        chosen = tuple(plan for plan in plans if plan.check.category == "vulnerability")
        return cls(chosen, Images(as_of, known_exploited))

    def of_running(self, cloud: str) -> tuple[Plan, ...]:
        """The checks of what runs on a cloud's clusters."""
        return tuple(plan for plan in self.plans if plan.check.scope is RunningContainer and plan.check.of == cloud)

    def take(self, estate: Estate) -> None:
        """What sources say; the estate no longer needs it then."""
        if not self.plans or (estate.account and estate.account.closed):
            return
        if estate.cluster:
            self._looks += 1
            estate.scans.cluster = f"look {self._looks}"
        elif estate.account:
            self.images.placed += [(estate.account, gap) for gap in estate.scans.gaps]
        else:
            self.images.gaps += estate.scans.gaps
        self.images.take(estate.scans)
        if estate.account:
            self._hold(estate, estate.account)
        estate.scans.scans = []

    def _hold(self, estate: Estate, account: Account) -> None:
        inventory, scans = estate.inventory, estate.scans
        gaps = list(scans.gaps)
        if account.refused and not scans.asked and not gaps:
            gaps = inventory.gaps[:1]
        kind = ContainerRegistry.kind
        registries = tuple(item.name.lower() for item in inventory.cloud if isinstance(item, ContainerRegistry))
        none = kind in inventory.kinds and not inventory.gaps_of((kind,)) and not registries
        complete, known = scans.listed or none, self.holders.get((account.id, account.region))
        if known:  # of two looks the one that lacks less, with what both have seen
            registries = tuple(dict.fromkeys((*known.registries, *registries)))
            complete, gaps = complete or known.complete, min(known.gaps, gaps, key=len)
        self.holders[account.id, account.region] = _Holder(account, estate.scope, gaps, complete, registries)

    def take_inside(self, row: Row, scope: str, estate: Estate) -> None:
        """The images of what runs in a cluster, once it is known which cluster that is."""
        if not any(plan.check.scope is RunningContainer for plan in self.plans):
            return
        inventory = estate.inventory
        broken = sum(item.resource.workload or item.resource.kind == "Pod" for item in inventory.invalid)
        lost = Gap(what="pods", reason=GapReason.BAD_DATA, detail=f"{broken} of them or their parts are not understood")
        inside = Inventory(
            kinds=[*inventory.kinds, IMAGES],
            asked=inventory.asked,
            excluded=inventory.excluded,
            gaps=inventory.gaps_of(("pods",)) + ([lost] if broken else []),
            namespace_labels=inventory.namespace_labels,
            cloud_of_nodes=inventory.cloud_of_nodes,
        )
        alone = Estate(
            estate.name, inside, estate.cluster, keys=estate.keys, scans=estate.scans, observed_at=estate.observed_at
        )
        told = bool(estate.scans.asked) and not estate.scans.gaps
        self.insides.append(_Inside(row, scope, alone, Packed(inventory.roots), told))
        for root in inventory.roots:  # packed: the rest is judged without them
            root.images = []

    # -- judging ------------------------------------------------------------------------------------------------------

    def resolve(self, index_of: IndexOf, stopped: Callable[[], bool]) -> Iterator[Gap]:
        """Ask registries for the platforms of what no source knows as what is of one platform. Raises KeyboardInterrupt
        between two questions once it is `stopped`."""
        running = {name for inside in self.insides for name in self.images.unsure(inside.running)}
        for registry, repository, digest in sorted(running | set(self.images.unsure_stored())):
            if stopped():
                raise KeyboardInterrupt
            refused = self.images.refused
            if (registry, "") in refused or (registry, repository) in refused:
                continue
            self.asked.add(registry)
            found = index_of(registry, repository, digest)
            if isinstance(found, Gap):
                refused[registry, "" if found.reason in _OF_ALL else repository] = found
                yield found
            elif found:
                self.images.add_index(digest, found)

    def judge(self, evaluate: Evaluate, row_of: Callable[[Row], Row]) -> None:
        """`row_of` tells which cluster an inside has turned out to be of: several may be of one."""
        by_row: dict[int, list[_Inside]] = defaultdict(list)
        rows = {}
        for inside in self.insides:
            row = row_of(inside.row)
            rows[id(row)] = row
            by_row[id(row)].append(inside)
        self.insides.clear()
        insides = [(rows[key], *_together(several)) for key, several in by_row.items()]
        for row, inside, running, looks in insides:  # first, as any may show that an image is for several platforms
            counts, self._parts[id(row)] = self.images.counts(running, looks)
            unseen = inside.estate.inventory.gaps and not counts.running
            row.cluster.images = None if unseen else counts
        for row, inside, running, looks in insides:
            self._judge_inside(row, inside, running, looks, evaluate)
        for plan in self.plans:
            if plan.check.scope is RegistryImage:
                self._judge_registries(plan, evaluate)

    def _judge_inside(
        self, row: Row, inside: _Inside, running: Iterable[Root], looks: Set[str], evaluate: Evaluate
    ) -> None:
        estate, own = inside.estate, inside.estate.scans.gaps
        cloud = _cloud_of(row, estate)
        plans = self.of_running(cloud)
        if not plans:
            self.unfit.append((row.cluster.name, cloud))
        groups: Iterable[Group] = self.images.running(running, own, looks)
        parts, counts = self._parts[id(row)], row.cluster.images
        kinds = {kind for kind, _ in parts}
        if counts and counts.running == counts.not_scanned + counts.no_digest and not self.images.knows(kinds, looks):
            if counts.running:  # told once for all
                estate.inventory.gaps.append(self._unknown([*own, *self.images.gaps_of(parts)], kinds))
            groups = ()
        evaluate(estate, inside.scope, row, plans, "running", groups)

    def _unknown(self, gaps: list[Gap], kinds: Set[str], of: str = "") -> Gap:
        """The gap that stands for every image: a source that was refused, or that there is none."""
        if gaps:
            gap = min(gaps, key=lambda gap: (gap.what, gap.reason, gap.sentence))  # in whatever order they came
            return Gap(what=IMAGES, reason=gap.reason, detail=f"{gap.sentence}{of}")
        if INSPECTOR in self.images.silent and "aws" in kinds:  # somebody did set it up
            detail = f"Amazon Inspector is on, and has scanned none of them{of}"
            return Gap(what=IMAGES, reason=GapReason.NOT_SCANNED, detail=detail)
        return Gap(what=IMAGES, reason=GapReason.NO_SOURCE, detail=f"{NO_SOURCE}{of}")

    def _judge_registries(self, plan: Plan, evaluate: Evaluate) -> None:
        kind = plan.check.of
        stored: dict[Place, list[Group]] = defaultdict(list)
        for places, group in self.images.registered(kind):
            stored[self._place_of(places)].append(group)
        holders = {place: holder for place, holder in self.holders.items() if holder.account.provider == kind}
        for place, groups in stored.items():
            if place not in holders or any(group.told for group in groups):
                holder = self.holders.get(place)
                evaluate(_estate(holder, kind, place), f"registry:{kind}", None, (plan,), f"{place}", groups)
        for place, holder in holders.items():
            gaps = list(self._lacking(holder, stored.get(place, [])))
            if gaps or place not in stored:
                evaluate(_estate(holder, kind, gaps=gaps), holder.scope, None, (plan,), "images", [])
        beside = list(self._beside(kind, holders.values()))
        if beside:
            evaluate(_estate(None, kind, gaps=beside), f"registry:{kind}", None, (plan,), "images", [])

    def _place_of(self, places: Iterable[Place]) -> Place:
        """The account of an image that was read, if any was; an account may stand for all of its regions."""
        held = [place for a, region in places for place in ((a, region), (a, None)) if place in self.holders]
        return min(held or places, key=str)

    def _lacking(self, holder: _Holder, groups: list[Group]) -> Iterator[Gap]:
        """Why there may be images in an account of which nothing is said, told once for all of them."""
        kind = holder.account.provider
        refused = [gap for gap in self.images.gaps if self.images.tells_of(gap.what, kind)]
        silent = [name for name in holder.registries if not any(_lies_in(group, name) for group in groups)]
        if holder.gaps:
            yield self._unknown(holder.gaps, {kind})
        elif groups and not any(group.told for group in groups):
            yield self._unknown(refused, {kind}, f" (none of {len(groups)} is scanned)")
        elif groups and silent:
            yield self._unknown(refused, {kind}, f" ({', '.join(silent[:5])}{' and others' if silent[5:] else ''})")
        elif not holder.complete and (refused or not groups):
            yield self._unknown(refused, {kind})

    def _beside(self, kind: str, holders: Iterable[_Holder]) -> Iterator[Gap]:
        """What is said once of registries that no account was read of: they are used and nobody tells of them, or who
        could was refused."""
        own = [gap for gap in self.images.gaps if SOURCES.get(gap.what) == kind]
        refused = [gap for gap in self.images.gaps if self.images.tells_of(gap.what, kind)]
        used = self.images.used.get(kind, set()) - self.images.parts(kind)
        used = {part for part in used if not any(_holds(holder, part) for holder in holders)}
        if used:
            some = ", ".join(sorted(used)[:5]) + (" and others" if used and len(used) > 5 else "")
            yield self._unknown(refused, {""}, f" ({some})")
        elif own and kind not in _CLOUDS:
            yield self._unknown(own, {kind})


def keep(kept: Vulnerable, plan: Plan, group: Group, finding: Finding) -> None:
    """The images that a finding fails for, with the scans that count under its check's parameters."""
    rule = Rule(**plan.kwargs)
    order = rule.precedence
    for subject in group.subjects:
        if isinstance(subject, RunningContainer) and excludes(plan, subject):
            continue
        for manifest, match in current(subject, rule):
            told = Told(order.get(match.scan.source, len(order)), match, rule.counts)
            kept.take(finding, subject.images, manifest, told)


def _together(insides: list[_Inside]) -> tuple[_Inside, Iterable[Root], Set[str]]:
    """Of several looks at one cluster the fullest, with what all of them have seen; and which looks those are."""
    fullest = min(insides, key=lambda inside: (len(inside.estate.inventory.gaps), -inside.told))
    # Whoever copies a cluster's uid joins its row. What an operator says is believed of the server that says it.
    own = {key for key in fullest.estate.keys if key.startswith(("server:", "ca:"))}
    same = [inside for inside in insides if inside is fullest or own & set(inside.estate.keys)]
    looks = frozenset(inside.estate.scans.cluster for inside in same)
    if len(insides) == 1:
        return fullest, fullest.running, looks
    return fullest, merged(inside.running for inside in insides), looks


def _holds(holder: _Holder, part: str) -> bool:
    """Whether a part of a registry belongs to an account that was read: its rows tell of it."""
    name = part.partition(".")[0]
    registries = (name == registry or name.startswith(f"{registry}-") for registry in holder.registries)
    return holds(holder.account, holder.account.provider, part) or any(registries)


def _lies_in(group: Group, registry: str) -> bool:
    """Whether it is an image of this registry of Azure, whose host may have a hash beside the name."""
    host = group.resource.name.partition(".")[0]
    return host == registry or host.startswith(f"{registry}-")


def _estate(holder: _Holder | None, kind: str, place: Place = (None, None), gaps: Iterable[Gap] = ()) -> Estate:
    account = holder.account if holder else Account(id=place[0] or "", provider=kind, name=kind, region=place[1])
    return Estate(account.name, Inventory(kinds=[IMAGES], gaps=list(gaps)), account=account)


def _cloud_of(row: Row, estate: Estate) -> str:
    """The cloud that a cluster is of: as the cloud says, or else as its nodes, its version and its address look."""
    cluster = row.cluster
    if cluster.provider in _CLOUDS:
        return cluster.provider
    version = cluster.version or ""
    told = estate.inventory.cloud_of_nodes or ("aws" if "-eks-" in version else "gcp" if "-gke." in version else "")
    if not told and any(key.startswith("server:") and ".azmk8s.io" in key for key in estate.keys):
        return "azure"
    return told or "kubernetes"


def source_row(name: str) -> Account:
    """What gaps of a source stand under that belongs to no account."""
    return Account(id="", provider="images", name=name, control_plane=PlaneState.NOT_ASKED)
