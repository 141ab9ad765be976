"""Vulnerable images, each once however many containers run it: gathered while they are judged, for reports that tell of
single vulnerabilities.

What scans found is not copied: a million vulnerabilities cost no more than the few images that they are in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from scanner import image_ref
from scanner.images import Manifest, Match
from scanner.model import Finding
from scanner.vulnerabilities import ImageScan, Level, Vulnerability, gravity

SHOWN = 10  # names, workloads and clusters of one image


class Told(NamedTuple):
    """A scan of an image, and what of it counts. `rank` is that of its source, by precedence: 0 is shown first."""

    rank: int
    match: Match
    counts: Callable[[Vulnerability], bool | None]


class Workload(NamedTuple):
    cluster: str
    group: str
    kind: str
    namespace: str
    name: str


_Named = TypeVar("_Named", str, Workload)


class Place(NamedTuple):
    """A provider, which need not be a cloud, with account and region; "" for what is not known."""

    provider: str = ""
    account: str = ""
    region: str = ""

    def common(self, other: Place) -> Place:
        """As much as both agree on."""
        if self.provider != other.provider:
            return Place()
        return Place(*(one if one == two else "" for one, two in zip(self, other, strict=True)))


class Source(NamedTuple):
    """Who tells of a vulnerability: with the newest scan that does, and the gravest level that any of them gives."""

    scan: ImageScan
    level: Level


class Known(NamedTuple):
    """One vulnerability of one image.

    `records` are one for each installed package, the gravest of the first source that knows it there; the gravest of
    all comes first. `sources` are by precedence. `doubts` are why none of the scans need be of this very image.
    """

    id: str
    records: list[Vulnerability]
    sources: list[Source]
    doubts: list[str]
    exploited: bool


@dataclass(slots=True)
class VulnerableImage:
    """One image, for one platform where that is known, with what is said of it.

    `version` is the digest, else the tag. `names` are references to it, `checks` fail for it, `workloads` and
    `clusters` run it: of each that can be many the first ten by their names. `exempted` is whether every finding that
    fails for it is.
    """

    repository: str
    version: str
    names: list[str] = field(default_factory=list)
    platforms: set[str] = field(default_factory=set)
    checks: dict[str, str] = field(default_factory=dict)  # titles
    workloads: list[Workload] = field(default_factory=list)
    clusters: list[str] = field(default_factory=list)
    workload_count: int = 0
    cluster_count: int = 0
    exempted: bool = True
    exploited: frozenset[str] = frozenset()
    _told: dict[tuple[str, int], Told] = field(default_factory=dict)  # by check and identity of the scan
    _last: Workload | None = None
    _stored: Place | None = None
    _run: Place | None = None

    @property
    def id(self) -> str:
        return f"{self.repository}{'@' if ':' in self.version else ':'}{self.version}"

    @property
    def place(self) -> Place:
        """Of the registry where that is known to be in an account, else of all clusters together that run it."""
        for place in (self._stored, self._run):
            if place and place.account:
                return place
        return self._stored or self._run or Place()

    def take(self, finding: Finding, told: Told) -> None:
        key = (finding.check, id(told.match.scan))
        if key not in self._told or told.match.sure:
            self._told[key] = told

    def tells(self, finding: Finding, told: Told) -> bool:
        """Whether any vulnerability of a scan counts."""
        known = (finding.check, id(told.match.scan)) in self._told
        return known or any(map(told.counts, told.match.scan.vulnerabilities))

    def stands(self, finding: Finding, names: Sequence[str], platform: str) -> None:
        """Where it is, as a finding tells."""
        self.names = _first(self.names, *names)
        self.platforms.update([platform] if platform else [])
        self.checks[finding.check] = finding.title
        self.exempted = self.exempted and finding.exemption is not None
        place = Place(finding.provider, finding.account or "", finding.region or "")
        if not finding.cluster:
            self._stored = self._stored.common(place) if self._stored else place
            return
        self._run = self._run.common(place) if self._run else place
        at = finding.resource
        workload = Workload(finding.cluster.id, at.api_group, at.kind, at.namespace or "", at.name)
        # Clusters are judged one after the other, and all containers of a workload together.
        if self._last is None or self._last.cluster != workload.cluster:
            self.cluster_count += 1
            self.clusters = _first(self.clusters, workload.cluster)
        if self._last != workload:
            self.workload_count += 1
            self.workloads = _first(self.workloads, workload)
        self._last = workload

    def known(self) -> Iterator[Known]:
        """What counts, by id."""
        found: dict[str, list[tuple[Match, Vulnerability]]] = defaultdict(list)
        for _, told in sorted(self._told.items(), key=_order):
            for one in told.match.scan.vulnerabilities:
                if told.counts(one):
                    found[one.id].append((told.match, one))
        for id in sorted(found):
            yield _known(id, found[id], exploited=id in self.exploited)


@dataclass(slots=True)
class Vulnerable:
    """Every vulnerable image, by repository and version."""

    exploited: frozenset[str] = frozenset()
    _images: dict[tuple[str, str], VulnerableImage] = field(default_factory=dict)

    def take(self, finding: Finding, names: Sequence[str], manifest: Manifest, told: Told) -> None:
        """A scan of an image that a finding fails for; nothing where none of what it found counts."""
        ref = image_ref.parse(names[0])
        key = (ref.name, manifest.digest or ref.digest or ref.tag or "latest")
        image = self._images.get(key) or VulnerableImage(*key, exploited=self.exploited)
        if image.tells(finding, told):
            self._images[key] = image
            image.take(finding, told)
            image.stands(finding, names, manifest.platform)

    def __iter__(self) -> Iterator[VulnerableImage]:
        for key in sorted(self._images):
            yield self._images[key]


def _first(known: list[_Named], *more: _Named) -> list[_Named]:
    return sorted(set(known).union(more))[:SHOWN]


def _order(entry: tuple[tuple[str, int], Told]) -> tuple[object, ...]:
    """By precedence, the newest first, in whatever order they were read."""
    (check, _), told = entry
    scan = told.match.scan
    age = -scan.scanned_at.timestamp() if scan.scanned_at else 0.0
    return told.rank, scan.source, age, scan.digest, scan.platform or "", scan.cluster, check


def _known(id: str, found: list[tuple[Match, Vulnerability]], *, exploited: bool) -> Known:
    first: dict[str, str] = {}  # the source that is shown, by package
    records: dict[tuple[str, str], Vulnerability] = {}
    sources: dict[str, Source] = {}
    for match, one in found:
        scan = match.scan
        if first.setdefault(one.package, scan.source) == scan.source:
            known = records.setdefault((one.package, one.installed), one)
            if gravity(one) < gravity(known):
                records[one.package, one.installed] = one
        newest, level = sources.setdefault(scan.source, Source(scan, one.level))
        sources[scan.source] = Source(newest, min(level, one.level, key=lambda each: each.rank))
    sure = any(match.sure for match, _ in found)
    doubts = [] if sure else sorted({match.doubt for match, _ in found})
    ranked = sorted(records.values(), key=lambda one: (one.level.rank, one.package, one.installed))
    return Known(id, ranked, list(sources.values()), doubts, exploited)
