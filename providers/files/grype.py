"""Reports of Grype: `grype IMAGE -o json`.

Source: github.com/anchore/grype, grype/presenter/models (document.go, match.go, alert.go) and
cmd/grype/cli/options/grype.go; github.com/anchore/syft, syft/source/image_metadata.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec
from msgspec import UNSET, Raw

from providers.files.image_report import (
    Found,
    Identifier,
    Names,
    Problem,
    RawOrUnset,
    Reason,
    Score,
    bounded,
    digest_of,
    first_reason,
    images,
    platform_of,
    time_of,
)
from scanner.normalize import NotUnderstood, decode
from scanner.vulnerabilities import ImageScan, Shared, level_of

TOOL = "grype"
RUN = "run `grype IMAGE -o json`"
MAX_FIXES = 10  # versions shown
_UNMATCHED = {"distro-disabled", "distro-unknown"}  # packages of such a system are compared with nothing


class _Wire(msgspec.Struct, frozen=True, rename="camel", gc=False):
    pass


class _Metrics(_Wire, frozen=True):
    base_score: Score | None = None


class _Cvss(_Wire, frozen=True):
    version: str | None = None
    metrics: _Metrics | None = None


class _Fix(_Wire, frozen=True):
    versions: list[str] | None = None


class _Vulnerability(_Wire, frozen=True):
    id: Identifier
    severity: str | None = None
    fix: _Fix | None = None
    cvss: list[_Cvss] | None = None

    @property
    def score(self) -> float | None:
        """CVSS 3 before any other version."""
        rated = [c for c in self.cvss or () if c.metrics and c.metrics.base_score is not None]
        best = next((c for c in rated if (c.version or "").startswith("3")), rated[0] if rated else None)
        return best.metrics.base_score if best and best.metrics else None


class _Known(_Wire, frozen=True):
    id: Identifier


class _KnownMatch(_Wire, frozen=True):
    """What is left of a match of which not all is understood."""

    vulnerability: _Known


class _Artifact(_Wire, frozen=True):
    name: str | None = None
    version: str | None = None


class _Match(_Wire, frozen=True):
    vulnerability: _Vulnerability
    artifact: _Artifact
    related_vulnerabilities: list[_Vulnerability] | None = None

    @property
    def id(self) -> str:
        """A GitHub advisory about one CVE goes by the CVE, as in other sources."""
        if not self.vulnerability.id.startswith("GHSA-"):
            return self.vulnerability.id
        cves = {related.id for related in self.related_vulnerabilities or () if related.id.startswith("CVE-")}
        return cves.pop() if len(cves) == 1 else self.vulnerability.id

    @property
    def score(self) -> float | None:
        rated = (v.score for v in (self.vulnerability, *(self.related_vulnerabilities or ())))
        return next((score for score in rated if score is not None), None)

    @property
    def fixed(self) -> str:
        versions = (self.vulnerability.fix and self.vulnerability.fix.versions) or []
        return ", ".join(bounded(version, 50) for version in versions[:MAX_FIXES])


class _Alert(_Wire, frozen=True):
    type: str | None = None


class _Alerts(_Wire, frozen=True):
    alerts: list[_Alert] | None = None


class _Target(_Wire, frozen=True):
    user_input: str | None = None
    image_id: str | None = msgspec.field(name="imageID", default=None)
    manifest_digest: str | None = None
    repo_digests: list[str] | None = None
    tags: list[str] | None = None
    architecture: str | None = None
    architecture_variant: str | None = None
    os: str | None = None


class _Source(_Wire, frozen=True):
    type: str | None = None
    target: RawOrUnset = UNSET


class _Distro(_Wire, frozen=True):
    name: str | None = None
    version: str | None = None


class _Configuration(msgspec.Struct, frozen=True, gc=False, rename="kebab"):
    only_fixed: bool | None = None
    only_notfixed: bool | None = None
    ignore_wontfix: str | None = None  # the value of --ignore-states: states of fixes, with commas


class _Status(_Wire, frozen=True):
    built: str | None = None


class _Database(_Wire, frozen=True):
    built: str | None = None  # as older versions tell it
    status: _Status | None = None


class _Descriptor(_Wire, frozen=True):
    timestamp: str | None = None
    configuration: _Configuration | None = None
    db: _Database | None = None

    @property
    def time(self) -> datetime | None:
        """When it was scanned, or else what it was compared with was made: an old database knows of nothing newer."""
        database = self.db or _Database()
        scanned = time_of(self.timestamp)
        built = time_of((database.status and database.status.built) or database.built)
        return min(scanned, built) if scanned and built else scanned


class _Report(_Wire, frozen=True):
    matches: RawOrUnset = UNSET
    source: _Source | None = None
    distro: _Distro | None = None
    descriptor: _Descriptor | None = None
    alerts_by_package: RawOrUnset = UNSET


def read(raw: Raw, shared: Shared) -> Iterator[ImageScan | Problem]:
    """The image of one report, under each of its names."""
    try:
        report = decode(raw, _Report)
        source = report.source or _Source()
        if source.type != "image":
            kind = bounded(source.type, 40) or "something"
            yield Problem(TOOL, f"is a report of a {kind}, not of an image: {RUN}")
            return
        target = _Target() if source.target is UNSET else decode(source.target, _Target)
    except NotUnderstood as error:
        yield Problem(TOOL, str(error))
        return
    yield from _scan(report, target, shared)


def _scan(report: _Report, target: _Target, shared: Shared) -> Iterator[ImageScan | Problem]:
    found = Found(shared)
    for one in found.items(report.matches, _Match, _rest):
        score = one.score
        level = level_of(one.vulnerability.severity, score)
        found.add(one.id, level, one.artifact.name, one.artifact.version, one.fixed, score)
    alerts = {a.type for package in found.items(report.alerts_by_package, _Alerts) for a in package.alerts or ()}
    descriptor = report.descriptor or _Descriptor()
    configuration = descriptor.configuration or _Configuration()
    unfinished, detail = first_reason(
        found.incomplete,
        ("incomplete", "" if _is_list(report.matches) else "the report has no list of matches"),
        *_system(report.distro or _Distro(), alerts),
        ("filtered", _filtered(configuration)),
    )
    scan = ImageScan(
        source=TOOL,
        config_digest=digest_of(target.image_id),
        platform=platform_of(target.os, target.architecture, target.architecture_variant),
        scanned_at=descriptor.time,
        unfinished=unfinished,
        detail=detail,
        only_fixed=bool(configuration.only_fixed or configuration.ignore_wontfix),
        vulnerabilities=found.vulnerabilities,
    )
    manifest = digest_of(target.manifest_digest)
    names = Names(target.repo_digests or (), target.tags or (), target.user_input or "", manifest)
    yield from images(scan, names, TOOL)


def _rest(raw: Raw) -> _Match:
    return _Match(_Vulnerability(decode(raw, _KnownMatch).vulnerability.id), _Artifact())


def _system(distro: _Distro, alerts: set[str | None]) -> tuple[Reason, Reason]:
    system = bounded(f"{distro.name or 'the distribution'} {distro.version or ''}".strip(), 60)
    unmatched = f"the packages of {system} were compared with nothing: Grype does not support it"
    past = f"{system} is past its end of life: nobody publishes its vulnerabilities any more"
    return (
        ("unsupported_os", unmatched if alerts & _UNMATCHED else ""),
        ("end_of_life", past if "distro-eol" in alerts else ""),
    )


def _filtered(configuration: _Configuration) -> str:
    states = (configuration.ignore_wontfix or "").split(",")
    if configuration.only_notfixed or "fixed" in (state.strip() for state in states):
        return f"vulnerabilities that can be fixed were left out: {RUN} without `--only-notfixed` and `--ignore-states`"
    return ""


def _is_list(raw: RawOrUnset) -> bool:
    return not isinstance(raw, msgspec.UnsetType) and bytes(memoryview(raw)[:1]) == b"["
