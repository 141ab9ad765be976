"""Reports of Trivy: `trivy image --format json`, and `trivy k8s --report all --format json`.

Source: github.com/aquasecurity/trivy, pkg/types/report.go, pkg/types/vulnerability.go, pkg/k8s/report/report.go. What a
clean report proves follows from pkg/scan/local/service.go and pkg/scan/ospkg/scan.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
from providers.trivy import NO_SYSTEM, SYSTEMS
from scanner.normalize import NotUnderstood, decode
from scanner.plain import plain
from scanner.vulnerabilities import ImageScan, Shared, level_of

TOOL = "trivy"
RUN = "run `trivy image --format json`"
_PACKAGES = ("os-pkgs", "lang-pkgs")
_NOT_AFFECTED = "not_affected"


def _field(name: str) -> str | None:
    return msgspec.field(name=name, default=None)


class _Config(msgspec.Struct, frozen=True, gc=False):
    architecture: str | None = None
    os: str | None = None
    variant: str | None = None


class _System(msgspec.Struct, frozen=True, gc=False):
    family: str | None = _field("Family")
    name: str | None = _field("Name")
    past: bool | None = msgspec.field(name="EOSL", default=None)  # end of service life

    @property
    def words(self) -> str:
        return bounded(f"{self.family} {self.name or ''}".strip(), 60)


class _Image(msgspec.Struct, frozen=True, gc=False):
    """Metadata of an artifact; empty for what is no image."""

    system: _System | None = msgspec.field(name="OS", default=None)
    id: str | None = _field("ImageID")
    digests: list[str] | None = msgspec.field(name="RepoDigests", default=None)
    tags: list[str] | None = msgspec.field(name="RepoTags", default=None)
    config: _Config | None = msgspec.field(name="ImageConfig", default=None)

    @property
    def named(self) -> bool:
        return bool(self.id or self.digests or self.tags)


class _Cvss(msgspec.Struct, frozen=True, gc=False):
    v3: Score | None = msgspec.field(name="V3Score", default=None)
    v4: Score | None = msgspec.field(name="V40Score", default=None)


class _Known(msgspec.Struct, frozen=True, gc=False):
    """What is left of a vulnerability of which not all is understood."""

    id: Identifier = msgspec.field(name="VulnerabilityID")


class _Vulnerability(_Known, frozen=True, gc=False):
    package: str | None = _field("PkgName")
    installed: str | None = _field("InstalledVersion")
    fixed: str | None = _field("FixedVersion")
    status: str | None = _field("Status")
    severity: str | None = _field("Severity")
    rated_by: str | None = _field("SeveritySource")
    cvss: dict[str, _Cvss] | None = msgspec.field(name="CVSS", default=None)

    @property
    def score(self) -> float | None:
        """Of whoever gave the severity, else of the NVD, else of anybody."""
        rated = self.cvss or {}
        order = [rated[who] for who in (self.rated_by, "nvd") if who in rated] or list(rated.values())
        return next((s for one in order for s in (one.v3, one.v4) if s is not None), None)


class _Result(msgspec.Struct, frozen=True, gc=False):
    """What one scanner says of one target, such as the packages of the operating system."""

    kind: str | None = _field("Class")
    packages: RawOrUnset = msgspec.field(name="Packages", default=UNSET)
    vulnerabilities: RawOrUnset = msgspec.field(name="Vulnerabilities", default=UNSET)

    @property
    def lists(self) -> bool:
        return _filled(self.packages)

    @property
    def finds(self) -> bool:
        return _filled(self.vulnerabilities)


class _Report(msgspec.Struct, frozen=True, gc=False):
    name: str | None = _field("ArtifactName")
    kind: str | None = _field("ArtifactType")
    created: str | None = _field("CreatedAt")
    image: _Image | None = msgspec.field(name="Metadata", default=None)
    results: RawOrUnset = msgspec.field(name="Results", default=UNSET)


class _Object(msgspec.Struct, frozen=True, gc=False):
    """An object of a cluster in a report of `trivy k8s`; each image of a pod has an entry of its own."""

    namespace: str | None = _field("Namespace")
    kind: str | None = _field("Kind")
    name: str | None = _field("Name")
    images: list[_Image] | _Image | None = msgspec.field(name="Metadata", default=None)
    results: RawOrUnset = msgspec.field(name="Results", default=UNSET)
    error: str | None = _field("Error")

    @property
    def words(self) -> str:
        return bounded("/".join(part for part in (self.namespace, self.kind, self.name) if part), 200)


class _Cluster(msgspec.Struct, frozen=True, gc=False):
    objects: RawOrUnset = msgspec.field(name="Resources", default=UNSET)


def read(raw: Raw, shared: Shared) -> Iterator[ImageScan | Problem]:
    """The image of one report, under each of its names."""
    try:
        report = decode(raw, _Report)
    except NotUnderstood as error:
        yield Problem(TOOL, str(error))
        return
    image = report.image or _Image()
    if report.kind != "container_image" and (report.kind or not image.named):
        kind = bounded(report.kind, 40) or "something"
        yield Problem(TOOL, f"is a report of a {kind}, not of an image: {RUN}")
        return
    yield from _scan(image, report.results, shared, name=report.name or "", created=report.created)


def read_cluster(raw: Raw, shared: Shared) -> Iterator[ImageScan | Problem]:
    """The images of a report of `trivy k8s`. It does not tell when they were scanned."""
    found = Found(shared)
    named = 0
    try:
        objects = decode(raw, _Cluster).objects
    except NotUnderstood as error:
        yield Problem(TOOL, str(error))
        return
    for item in found.items(objects, _Object):
        given = [item.images] if isinstance(item.images, _Image) else item.images or []
        known = [image for image in given if image.named]
        named += len(known)
        failed = plain(item.error or "")
        mixed = f"the report mixes what was found in {len(known)} images of {item.words}" if len(known) > 1 else ""
        for image in known:
            results = UNSET if mixed else item.results
            yield from _scan(image, results, shared, ("failed", failed), ("not_attributed", mixed))
        if failed and not known:
            yield Problem(TOOL, f"an image of {item.words} was not scanned: {failed}")
    if found.broken:
        yield Problem(TOOL, found.incomplete[1])
    elif not named:
        yield Problem(TOOL, "names no image: run `trivy k8s --report all --scanners vuln --format json`")


def _scan(
    image: _Image, results: RawOrUnset, shared: Shared, *reasons: Reason, name: str = "", created: str | None = None
) -> Iterator[ImageScan | Problem]:
    found = Found(shared)
    read = list(found.items(results, _Result))
    for result in read:
        for one in found.items(result.vulnerabilities, _Vulnerability, _rest):
            if one.status != _NOT_AFFECTED:
                score = one.score
                found.add(one.id, level_of(one.severity, score), one.package, one.installed, one.fixed, score)
    config = image.config or _Config()
    unfinished, detail = first_reason(
        *reasons,
        found.incomplete,
        ("nothing_scanned", _unproven([r for r in read if r.kind in _PACKAGES])),
        *_system(image.system or _System(), read),
    )
    scan = ImageScan(
        source=TOOL,
        config_digest=digest_of(image.id),
        platform=platform_of(config.os, config.architecture, config.variant),
        scanned_at=time_of(created),
        unfinished=unfinished,
        detail=detail,
        vulnerabilities=found.vulnerabilities,
    )
    yield from images(scan, Names(image.digests or (), image.tags or (), name), TOOL)


def _rest(raw: Raw) -> _Vulnerability:
    return _Vulnerability(decode(raw, _Known).id)


def _unproven(results: Sequence[_Result]) -> str:
    """Why no vulnerabilities in these results would prove nothing: other scanners list packages too.

    Trivy 0.67 and later list all packages whichever scanners run; a report does not tell which did. Without that list
    there is a result for packages only if vulnerabilities were looked for.
    """
    if not results:
        return f"the report has no result for packages, as if other scanners had run: {RUN} with `--scanners vuln`"
    if not any(result.lists for result in results):
        return ""
    if any(r.kind == "os-pkgs" and not (r.lists or r.finds) for r in results):
        return "no package of the operating system was found in the image"
    if not any(result.finds for result in results):
        return (
            "the report lists packages and no vulnerability, as it does too where only other scanners ran: "
            f"{RUN} with `--scanners vuln --list-all-pkgs=false`, whose report is proof"
        )
    return ""


def _system(system: _System, results: Sequence[_Result]) -> tuple[Reason, Reason]:
    family = (system.family or "").lower()
    scanned = any(r.kind == "os-pkgs" and (family in SYSTEMS or r.finds) for r in results)
    missing = (
        f"the packages of {system.words} were not scanned: Trivy does not support it, or was told to leave them out"
    )
    past = f"{system.words} is past its end of life: nobody publishes its vulnerabilities any more"
    return (
        ("unsupported_os", missing if family not in NO_SYSTEM and not scanned else ""),
        ("end_of_life", past if system.past else ""),
    )


def _filled(raw: RawOrUnset) -> bool:
    if isinstance(raw, msgspec.UnsetType):
        return False
    try:
        return bool(decode(raw, list[Raw] | None))  # type: ignore[arg-type]
    except NotUnderstood:
        return True
