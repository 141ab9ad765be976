"""The rule of every check of images: which vulnerabilities count, and what proves that there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from scanner.images import Manifest, Match, ScannedImage
from scanner.model import Evidence, Severity, Status, Verdict
from scanner.vulnerabilities import SOURCES, ImageScan, Level, Vulnerability, gravity

MinSeverity = Annotated[
    Literal["critical", "high", "medium", "low", "negligible"], "vulnerabilities less grave than this do not count"
]
FixableOnly = Annotated[bool, "count only vulnerabilities that a newer version fixes"]
MaxScanAge = Annotated[int, "days after which a scan no longer proves that there is nothing"]
Sources = Annotated[
    tuple[
        Literal["defender", "inspector", "ecr", "artifact-analysis", "xray", "trivy-operator", "trivy", "grype"], ...
    ],
    "sources whose records are shown first, where several know of a vulnerability",
]

SHOWN = 20  # vulnerabilities in the evidence of one finding
_AHEAD = timedelta(days=1)  # by which clocks may differ
_OLDEST = 36_500  # days, more than any scan's age


@dataclass(frozen=True, slots=True)
class Rule:
    """The parameters of a check of images."""

    min_severity: str
    fixable_only: bool
    max_scan_age: int
    sources: Sequence[str]

    @property
    def precedence(self) -> dict[str, int]:
        """0 for the source whose records are shown first."""
        return {name: i for i, name in enumerate(dict.fromkeys((*self.sources, *SOURCES)))}

    def counts(self, found: Vulnerability) -> bool | None:
        """None where it depends on a rating that nobody has given: above the least that every vulnerability has."""
        if self.fixable_only and not found.fixed:
            return False
        floor = Level(self.min_severity).rank
        if found.level is Level.UNKNOWN:
            return True if floor >= Level.LOW.rank else None
        return found.level.rank <= floor


@dataclass(slots=True)
class _Found:
    """What counts in one image, by id and package: the record shown, and who knows of it."""

    active: dict[tuple[str, str], Vulnerability] = field(default_factory=dict)
    told_by: dict[tuple[str, str], str] = field(default_factory=dict)  # the source of each
    below: set[tuple[str, str]] = field(default_factory=set)
    unrated: set[tuple[str, str]] = field(default_factory=set)
    scans: list[ImageScan] = field(default_factory=list)
    sure: bool = False  # whether what counts was found in a scan of this very image
    doubts: set[str] = field(default_factory=set)

    def add(self, scan: ImageScan, rule: Rule) -> bool:
        """Whether any of its vulnerabilities counts. Of several records of one the first source's stands, and of its
        own the gravest."""
        counting = False
        for one in scan.vulnerabilities:
            key, counts = (one.id, one.package), rule.counts(one)
            if counts:
                counting = True
                known = self.active.get(key)
                if known is None or (self.told_by[key] == scan.source and gravity(one) < gravity(known)):
                    self.active[key], self.told_by[key] = one, scan.source
            elif counts is None:
                self.unrated.add(key)
            else:
                self.below.add(key)
        return counting


def judged(image: ScannedImage, rule: Rule, severity: Severity) -> Verdict:
    """Fails where anything counts; passes only where each manifest was scanned to the end, lately and for sure.

    `severity` is the recommendation's own; the finding's is that of the worst vulnerability that counts.
    """
    found = _found(image, rule)
    about = _about(image, found, severity)
    if found.active:
        return _fail(image, found, about)
    if found.unrated:
        message = f"{_n(len(found.unrated))} that nobody has rated yet, which may be {rule.min_severity} or worse"
        return Verdict(Status.UNKNOWN, "unrated", message, about)
    for manifest in image.manifests:
        if why := _unproven(image, manifest, rule):
            reason, message = why
            return Verdict(Status.UNKNOWN, reason, message, about)
    left = f", {len(found.below)} below {rule.min_severity} or without a fix left out" if found.below else ""
    return Verdict(Status.PASS, "", f"nothing that counts was found{left}", about)


def _found(image: ScannedImage, rule: Rule) -> _Found:
    found = _Found()
    for _, match in current(image, rule):
        scan = match.scan
        if scan.told:
            found.scans.append(scan)
        if found.add(scan, rule):
            found.sure = found.sure or match.sure
            found.doubts.update([match.doubt] if match.doubt else [])
    found.unrated -= found.active.keys()
    found.below -= found.active.keys()
    return found


def current(image: ScannedImage, rule: Rule) -> Iterator[tuple[Manifest, Match]]:
    """Whatever of each manifest no newer scan has taken the place of, by precedence."""
    for manifest in image.manifests:
        for match in _current(manifest.matches, rule, image.as_of):
            yield manifest, match


def _current(matches: Iterable[Match], rule: Rule, as_of: datetime) -> list[Match]:
    """By precedence. Of one source and platform the newest finished scan takes the place of older ones."""
    order = rule.precedence
    newest: dict[tuple[object, ...], Match] = {}
    kept = []
    for match in matches:
        scan = match.scan
        if scan.unfinished or not scan.scanned_at or _is_ahead(scan, as_of):
            kept.append(match)
            continue
        key = (scan.source, scan.platform, scan.only_fixed, match.sure)
        known = newest.get(key)
        if known is None or _time(known.scan) < _time(scan):
            newest[key] = match
        elif _time(known.scan) == _time(scan):
            kept.append(match)
    return sorted([*newest.values(), *kept], key=lambda match: order.get(match.scan.source, len(order)))


def _is_ahead(scan: ImageScan, as_of: datetime) -> bool:
    return _time(scan) > as_of + _AHEAD


def _time(scan: ImageScan) -> datetime:
    time = scan.scanned_at or datetime.min.replace(tzinfo=UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


# ---------------------------------------------------------------------------------------------------------------------
# Proof


def _unproven(image: ScannedImage, manifest: Manifest, rule: Rule) -> tuple[str, str] | None:
    """Why the scans do not prove that there is nothing: the reason that is closest to being a proof."""
    reasons = [_shortcoming(match, image.as_of, rule) for match in _current(manifest.matches, rule, image.as_of)]
    if not all(reasons):
        return None
    given = sorted(filter(None, reasons))
    refused = min(manifest.gaps, key=lambda gap: (gap.what, gap.reason, gap.sentence), default=None)
    if given and not (refused and given[0][1] == "not_scanned"):
        return given[0][1:]
    if refused:
        return refused.reason.value, f"not known: {refused.sentence}"
    if manifest.elsewhere:
        platforms = ", ".join(manifest.elsewhere)
        return "not_scanned", f"it was scanned for {platforms}, and not for {manifest.platform}"
    if not manifest.digest:
        return "no_digest", "the node has not told which image runs, and none is known by its tag"
    return "not_scanned", "no source knows of a scan of this image"


def _shortcoming(match: Match, as_of: datetime, rule: Rule) -> tuple[int, str, str] | None:
    """How far a scan is from being a proof, with reason and message; None where it is one."""
    scan = match.scan
    by = f"the scan of {scan.source}"
    if scan.unfinished:
        return 5, scan.unfinished, f"{by} proves nothing: {scan.detail or scan.unfinished.replace('_', ' ')}"
    if match.doubt:
        return 4, "not_certain", f"{by} found nothing, but {match.doubt}"
    if scan.only_fixed and not rule.fixable_only:
        return 1, "only_fixed", f"{by} left out vulnerabilities that have no fix"
    if scan.scanned_at is None:
        return 3, "scan_time_unknown", f"{by} does not tell when it was"
    if _is_ahead(scan, as_of):
        return 3, "scan_time_unknown", f"{by} is dated in the future: {_day(scan)}"
    if as_of - _time(scan) > timedelta(days=min(rule.max_scan_age, _OLDEST)):
        return 2, "stale_scan", f"{by} is of {_day(scan)}, more than {rule.max_scan_age} days old"
    return None


# ---------------------------------------------------------------------------------------------------------------------
# What is said


def _fail(image: ScannedImage, found: _Found, about: tuple[Evidence, ...]) -> Verdict:
    ranked = sorted(found.active.values(), key=lambda one: _order(one, image.known_exploited))
    exploited = sum(one.id in image.known_exploited for one in ranked)
    by_level = Counter(one.level for one in ranked)
    counts = ", ".join(f"{by_level[level]} {level}" for level in Level if by_level[level])
    fixable = sum(bool(one.fixed) for one in ranked)
    first = ranked[0]
    message = f"{_n(len(ranked))} ({counts}), {fixable or 'none'} with a fix"
    if exploited:
        message += f", {exploited} known to be exploited"
    message += f"; first {first.id}{f' in {first.package}' if first.package else ''}"
    if found.doubts and not found.sure:
        message += f" ({'; '.join(sorted(found.doubts))})"
    shown = (_evidence(one, one.id in image.known_exploited) for one in ranked[:SHOWN])
    worst = min(ranked, key=lambda one: one.level.severity.rank).level.severity
    return Verdict(Status.FAIL, "vulnerable", message, (Evidence("found", counts), *about, *shown), worst)


def _order(one: Vulnerability, exploited: frozenset[str]) -> tuple[object, ...]:
    return one.id not in exploited, one.level.rank, -(one.cvss or 0.0), not one.fixed, one.id, one.package


def _evidence(one: Vulnerability, exploited: bool) -> Evidence:
    parts = [str(one.level), f"installed {one.installed}" if one.installed else "", f"fixed in {one.fixed or 'none'}"]
    if one.cvss is not None:
        parts.insert(1, f"CVSS {one.cvss:g}")
    if exploited:
        parts.insert(0, "known exploited")
    return Evidence(f"{one.id}[{one.package}]" if one.package else one.id, ", ".join(filter(None, parts)))


def _about(image: ScannedImage, found: _Found, severity: Severity) -> tuple[Evidence, ...]:
    """Which image it is, who scanned it when, and what the recommendation's own severity is."""
    return (
        *(Evidence("image", name) for name in image.images[:SHOWN]),
        *dict.fromkeys(Evidence("digest", _name(manifest)) for manifest in image.manifests[:SHOWN]),
        *(Evidence(f"source[{name}]", when) for name, when in _sources(found.scans)),
        Evidence("recommendation.severity", severity.value),
    )


def _name(manifest: Manifest) -> str:
    platform = f" ({manifest.platform})" if manifest.platform else ""
    return f"{manifest.digest or 'not told'}{platform}"


def _sources(scans: Iterable[ImageScan]) -> Iterator[tuple[str, str]]:
    newest: dict[str, ImageScan] = {}
    for scan in scans:
        if scan.source not in newest or _time(newest[scan.source]) < _time(scan):
            newest[scan.source] = scan
    for name, scan in newest.items():
        platform = f" for {scan.platform}" if scan.platform else ""
        when = f"scanned {_day(scan)}{platform}" if scan.scanned_at else f"scanned{platform}, time not told"
        yield name, when + (f": {scan.detail}" if scan.detail else "")


def _day(scan: ImageScan) -> str:
    return _time(scan).date().isoformat()


def _n(count: int) -> str:
    return f"{count:,} vulnerabilit{'y' if count == 1 else 'ies'}"
