"""Judges images when every source and every cluster has been read: any source may know what any cluster runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from scanner.azure import ContainerRegistry
from scanner.check import IMAGES
from scanner.clusters import Row
from scanner.collect import Estate
from scanner.config import Plan
from scanner.images import Group, Images, Packed, RegistryImage, RunningContainer
from scanner.inventory import Inventory
from scanner.model import Account, Gap, GapReason, PlaneState
from scanner.vulnerabilities import Platform

NO_SOURCE = (
    "no source tells of them: give files of Trivy or Grype with --vulnerabilities, install trivy-operator, or have the "
    "cloud scan images"
)
INSPECTOR = "inspector"
Place = tuple[str | None, str | None]  # account and region
_CLOUDS = ("azure", "aws", "gcp")


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

    @classmethod
    def of(cls, plans: Iterable[Plan], as_of: datetime, known_exploited: frozenset[str]) -> ImageJudging:
        chosen = tuple(plan for plan in plans if plan.check.category == "vulnerability")
        return cls(chosen, Images(as_of, known_exploited))

    def of_running(self, cloud: str) -> tuple[Plan, ...]:
        """The checks of what runs on a cloud's clusters."""
        return tuple(plan for plan in self.plans if plan.check.scope is RunningContainer and plan.check.of == cloud)

    def take(self, estate: Estate) -> None:
        """What sources say; the estate no longer needs it then."""
        if not self.plans:
            return
        self.images.take(estate.scans, _look(estate))
        if not estate.cluster:  # a cluster's own sources tell of no other
            self.images.gaps += estate.scans.gaps
        if estate.account and not estate.account.closed:
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
        found = _Holder(account, estate.scope, gaps, scans.listed or none, registries)
        known = self.holders.get((account.id, account.region))
        if known is None or len(gaps) < len(known.gaps):  # of two looks the one that lacks less
            self.holders[account.id, account.region] = found

    def take_inside(self, row: Row, scope: str, estate: Estate) -> None:
        """The images of what runs in a cluster, once it is known which cluster that is."""
        if not any(plan.check.scope is RunningContainer for plan in self.plans):
            return
        inventory = estate.inventory
        broken = sum(item.resource.workload or item.resource.kind == "Pod" for item in inventory.invalid)
        lost = Gap(what="pods", reason=GapReason.BAD_DATA, detail=f"{broken} of them or their parts are not understood")
        inside = Inventory(
            kinds=[*inventory.kinds, IMAGES],
            gaps=inventory.gaps_of(("pods",)) + ([lost] if broken else []),
            namespace_labels=inventory.namespace_labels,
            cloud_of_nodes=inventory.cloud_of_nodes,
        )
        alone = Estate(
            estate.name, inside, estate.cluster, keys=estate.keys, scans=estate.scans, observed_at=estate.observed_at
        )
        self.insides.append(_Inside(row, scope, alone, Packed(inventory.roots)))

    # -- judging ------------------------------------------------------------------------------------------------------

    def resolve(self, index_of: IndexOf) -> Iterator[Gap]:
        """Ask registries for the platforms of what runs and no source knows."""
        for registry, repository, digest in sorted(
            {name for i in self.insides for name in self.images.unknown(i.running)}
        ):
            found = None if registry in self.images.refused else index_of(registry, repository, digest)
            if isinstance(found, Gap):
                self.images.refused[registry] = found
                yield found
            elif found:
                self.images.indexes[digest] = found

    def judge(self, evaluate: Evaluate) -> None:
        for inside in self.insides:
            self._judge_inside(inside, evaluate)
        self.insides.clear()
        for plan in self.plans:
            if plan.check.scope is RegistryImage:
                self._judge_registries(plan, evaluate)

    def _judge_inside(self, inside: _Inside, evaluate: Evaluate) -> None:
        estate, row = inside.estate, inside.row
        counts = self.images.counts(inside.running)
        if row.cluster.images is None or row.cluster.images.running < counts.running:
            row.cluster.images = counts
        plans = self.of_running(_cloud_of(row, estate))
        groups: Iterable[Group] = self.images.running(inside.running, estate.scans.gaps, _look(estate))
        if counts.running and not self.images.known:  # told once, not for each image
            estate.inventory.gaps.append(self._unknown([*estate.scans.gaps, *self.images.gaps]))
            groups = ()
        evaluate(estate, inside.scope, row, plans, "running", groups)

    def _unknown(self, gaps: list[Gap], of: str = "") -> Gap:
        """The gap that stands for every image: a source that was refused, or that there is none."""
        if gaps:
            gap = gaps[0]
            return Gap(what=IMAGES, reason=gap.reason, detail=f"{gap.sentence}{of}")
        if INSPECTOR in self.images.silent:  # somebody did set it up
            detail = f"Amazon Inspector is on, and has scanned none of them{of}"
            return Gap(what=IMAGES, reason=GapReason.NOT_SCANNED, detail=detail)
        return Gap(what=IMAGES, reason=GapReason.NO_SOURCE, detail=f"{NO_SOURCE}{of}")

    def _judge_registries(self, plan: Plan, evaluate: Evaluate) -> None:
        kind = plan.check.of
        stored: dict[Place, list[Group]] = defaultdict(list)
        for places, group in self.images.registered(kind):
            held = sorted((place for place in places if place in self.holders), key=str)
            stored[held[0] if held else (None, None)].append(group)
        holders = {place: holder for place, holder in self.holders.items() if holder.account.provider == kind}
        for place, groups in stored.items():
            if place not in holders or any(group.told for group in groups):
                evaluate(_estate(self.holders.get(place), kind), f"registry:{kind}", None, (plan,), f"{place}", groups)
        for place, holder in holders.items():
            gaps = list(self._lacking(holder, stored.get(place, [])))
            if gaps or place not in stored:
                evaluate(_estate(holder, kind, gaps), holder.scope, None, (plan,), "images", [])
        if not stored and not holders and kind in self.images.used:
            gap = self._unknown([gap for gap in self.images.gaps if self.images.tells_of(gap.what, kind)])
            evaluate(_estate(None, kind, [gap]), f"registry:{kind}", None, (plan,), "images", [])

    def _lacking(self, holder: _Holder, groups: list[Group]) -> Iterator[Gap]:
        """Why there may be images in an account of which nothing is said, told once for all of them."""
        refused = [gap for gap in self.images.gaps if self.images.tells_of(gap.what, holder.account.provider)]
        silent = [name for name in holder.registries if not any(_lies_in(group, name) for group in groups)]
        if holder.gaps:
            yield self._unknown(holder.gaps)
        elif groups and not any(group.told for group in groups):
            yield self._unknown(refused, f" (none of {len(groups)} is scanned)")
        elif groups and silent:
            yield self._unknown(refused, f" ({', '.join(silent[:5])}{' and others' if silent[5:] else ''})")
        elif not groups and not holder.complete:
            yield self._unknown(refused)


def _lies_in(group: Group, registry: str) -> bool:
    """Whether it is an image of this registry of Azure, whose host may have a hash beside the name."""
    host = group.resource.name.partition(".")[0]
    return host == registry or host.startswith(f"{registry}-")


def _look(estate: Estate) -> str:
    """The look into a cluster that an estate is of, "" for what is none."""
    return f"{estate.cluster.id_source}:{estate.name}" if estate.cluster else ""


def _estate(holder: _Holder | None, kind: str, gaps: Iterable[Gap] = ()) -> Estate:
    account = holder.account if holder else Account(id="", provider=kind, name=kind)
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
