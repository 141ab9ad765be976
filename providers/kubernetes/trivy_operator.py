"""What trivy-operator found in the images of one cluster: its VulnerabilityReports.

The operator scans what a workload's image reference points to, not what a node runs. Some of its versions report the
digest of the image's configuration where others report that of the manifest (aquasecurity/trivy-operator#2259).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from msgspec import Raw

from providers.kubernetes.connection import Connection
from providers.kubernetes.errors import ApiError
from providers.kubernetes.reader import Scope, pages
from providers.trivy import NO_SYSTEM, SYSTEMS
from scanner import image_ref, wire
from scanner.inventory import Inventory
from scanner.kube import Kind, printable
from scanner.model import Gap, GapReason, utc_now
from scanner.normalize import NotUnderstood, decode
from scanner.vulnerabilities import ImageScan, Level, Scans, Shared, Vulnerability, distinct, level_of, time_of

SOURCE = "trivy-operator"
KIND = Kind("VulnerabilityReport", "vulnerabilityreports", "aquasecurity.github.io", "v1alpha1", optional=True)
PAGE = 50  # reports of one page: each may come near the 1.5 MB that etcd takes
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST_NAME = 500  # characters of registry and repository; registries take fewer
_LONGEST_TAG = 128


class _Named(wire.Wire, frozen=True):
    name: str | None = None


class _Resources(wire.Wire, frozen=True):
    resources: tuple[_Named, ...] | None = None


class _Artifact(wire.Wire, frozen=True):
    repository: str | None = None
    tag: str | None = None
    digest: str | None = None


class _Registry(wire.Wire, frozen=True):
    server: str | None = None


class _System(wire.Wire, frozen=True):
    family: str | None = None
    name: str | None = None
    eosl: bool | None = None


class _Summary(wire.Wire, frozen=True):
    critical_count: int | None = None
    high_count: int | None = None
    medium_count: int | None = None
    low_count: int | None = None
    unknown_count: int | None = None

    @property
    def total(self) -> int:
        return sum(max(getattr(self, name) or 0, 0) for name in self.__struct_fields__)


class _Data(wire.Wire, frozen=True):
    artifact: _Artifact = _Artifact()
    registry: _Registry | None = None
    os: _System | None = None
    summary: _Summary | None = None
    update_timestamp: str | None = None
    vulnerabilities: tuple[Raw, ...] | None = None


class _Report(wire.Wire, frozen=True):
    report: _Data
    metadata: wire.PodMeta = wire.PodMeta()


class _Known(wire.Wire, frozen=True):
    """What is left of a vulnerability of which not all is understood."""

    vulnerability_id: Annotated[str, msgspec.Meta(min_length=1)] = msgspec.field(name="vulnerabilityID")


class _Found(_Known, frozen=True):
    resource: str | None = None
    installed_version: str | None = None
    fixed_version: str | None = None
    severity: str | None = None
    score: float | None = None


def read(connection: Connection, scope: Scope, inventory: Inventory, platform: str) -> Scans:
    """The newest report of each image, where the operator is there; what was refused is in the gaps.

    `inventory` is what was read of the cluster before: its namespaces count where not all may be listed at once.
    `platform` is that of every node ("linux/amd64"), "" where they differ or do not tell.
    """
    reading = _Reading(connection, scope, platform)
    try:
        if _installed(connection):
            reading.read(inventory)
            return reading.scans()
    except _NotInstalled:
        pass
    return Scans()


class _NotInstalled(Exception):
    """The API server knows of no such reports."""


def _installed(connection: Connection) -> bool:
    """False only where the server says so: who may not list reports is refused them where there are none, too."""
    try:
        found = decode(connection.get(KIND.api), _Resources).resources
    except ApiError as error:
        return error.status != 404
    except NotUnderstood:
        return True
    return found is None or any(resource.name == KIND.plural for resource in found)


@dataclass(slots=True)
class _Reading:
    connection: Connection
    scope: Scope
    platform: str
    shared: Shared = field(default_factory=Shared)
    newest: dict[tuple[str, ...], ImageScan] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    items: int = 0
    answered: bool = False  # whether any list was
    odd: int = 0  # reports that were not understood
    first_odd: str = ""  # and why

    def scans(self) -> Scans:
        if self.odd:
            self._gap("*", GapReason.BAD_DATA, f"{self.odd} reports are not understood; the first, {self.first_odd}")
        return Scans(asked=[SOURCE], scans=list(self.newest.values()), gaps=self.gaps)

    # -- lists --------------------------------------------------------------------------------------------------------

    def read(self, inventory: Inventory) -> None:
        """Cluster-wide where nobody named namespaces, else, or if that is refused, namespace by namespace."""
        if self.scope.namespaces:
            self._read_each(self.scope.namespaces)
            return
        try:
            self._list("*")
        except ApiError as error:
            if error.status != 403 or self.items:
                self._refused("*", error)
                return
            known = [name for name in inventory.namespace_labels if self.scope.keeps(name)]
            if not known and self.scope.fallback:
                known = [self.scope.fallback]
            self._read_each(known, error, more=bool(inventory.gaps_of(("namespaces",))))

    def _read_each(self, namespaces: Iterable[str], refusal: ApiError | None = None, more: bool = False) -> None:
        """`refusal`, of the cluster-wide list, stands where there may be `more` namespaces, or none could be read."""
        refused: dict[str, ApiError] = {}
        readable = False
        for namespace in namespaces:
            try:
                self._list(namespace)
            except ApiError as error:
                refused[namespace] = error
                if error.status == 401:
                    break
            else:
                readable = True
        if refusal and (more or not readable):
            refused = {"*": refusal}
        for namespace, why in refused.items():
            self._refused(namespace, why)

    def _list(self, namespace: str) -> None:
        try:
            for page in pages(self.connection, KIND, namespace, size=PAGE):
                self.answered = True
                self.items += len(page)
                for item in page:
                    self._take(item)
        except ApiError as error:
            if error.status == 404 and not self.answered:
                raise _NotInstalled from None
            raise

    def _refused(self, namespace: str, error: ApiError) -> None:
        where = "" if namespace == "*" else f" in namespace {namespace}"
        permission = f"list {KIND.plural}.{KIND.group}{where}" if error.status == 403 else ""
        self._gap(namespace, error.reason, error.detail, permission)

    def _gap(self, namespace: str, reason: GapReason, detail: str, permission: str = "") -> None:
        self.gaps.append(
            Gap(what=SOURCE, reason=reason, detail=detail, permission=permission, namespace=namespace, time=utc_now())
        )

    # -- reports ------------------------------------------------------------------------------------------------------

    def _take(self, item: Raw) -> None:
        """Of several reports of one image, as each ReplicaSet and container has its own, the newest counts."""
        try:
            given = decode(item, _Report)
            if self.scope.keeps(given.metadata.namespace or ""):
                scan = _image(given.report, self.platform)
                key = (scan.registry, scan.repository, scan.digest, *(scan.tags or ("",)))
                known = self.newest.get(key)
                if known is None or _is_newer(scan, known):
                    self._fill(scan, given.report)
                    self.newest[key] = scan
        except NotUnderstood as error:
            self.odd += 1
            self.first_odd = self.first_odd or f"{_name_of(item)}: {error}"

    def _fill(self, scan: ImageScan, given: _Data) -> None:
        found, broken = self._vulnerabilities(given.vulnerabilities or ())
        scan.vulnerabilities = distinct(found)
        listed = len(given.vulnerabilities or ())
        if broken:
            scan.unfinished, scan.detail = "incomplete", f"{broken} vulnerabilities of the report are not understood"
        elif given.summary is None or given.vulnerabilities is None:
            scan.unfinished, scan.detail = "incomplete", "the report lacks its summary or its vulnerabilities"
        elif given.summary.total > listed:
            scan.detail = f"the report counts {given.summary.total} vulnerabilities and lists {listed}"
            scan.unfinished = "incomplete"
        else:
            scan.unfinished, scan.detail = _unproven(given.os or _System(), listed)

    def _vulnerabilities(self, items: Iterable[Raw]) -> tuple[list[Vulnerability], int]:
        """And how many of them could not be understood."""
        found, broken = [], 0
        for item in items:
            try:
                given = decode(item, _Found)
            except NotUnderstood:
                broken += 1
                with contextlib.suppress(NotUnderstood):
                    found.append(self.shared.found(decode(item, _Known).vulnerability_id, Level.UNKNOWN))
                continue
            level = level_of(given.severity, given.score)
            package, installed, fixed = given.resource or "", given.installed_version or "", given.fixed_version or ""
            found.append(self.shared.found(given.vulnerability_id, level, package, installed, fixed, given.score))
        return found, broken


def _image(given: _Data, platform: str) -> ImageScan:
    """What a report is about, without what it found. Raises NotUnderstood."""
    artifact, server = given.artifact, given.registry.server if given.registry else None
    name, tag = "/".join(filter(None, (server, artifact.repository))), artifact.tag or ""
    if len(name) > _LONGEST_NAME or len(tag) > _LONGEST_TAG:
        raise NotUnderstood("the name of its image is too long")
    digest = (artifact.digest or "").lower()
    digest = digest if _DIGEST.fullmatch(digest) else ""
    if not artifact.repository or not (digest or tag):
        raise NotUnderstood("it names no image")
    ref = image_ref.parse(name)
    return ImageScan(
        source=SOURCE,
        registry=ref.registry,
        repository=ref.repository,
        tags=(tag,) if tag else None,
        digest=digest,
        config_digest=digest if tag else "",  # of either: they cannot be mistaken for each other
        platform=platform,
        scanned_at=time_of(given.update_timestamp),
    )


def _unproven(system: _System, listed: int) -> tuple[str, str]:
    """Why what Trivy lists may not be all: a code and words, "" where it is. A report does not tell whether Trivy found
    any package at all."""
    family = (system.family or "").lower()
    name = printable(f"{system.family or ''} {system.name or ''}".strip() or "its system", 100)
    if system.eosl:
        return "end_of_life", f"{name} is past its end of life: nobody tells any more what is wrong with it"
    if family not in (*NO_SYSTEM, *SYSTEMS):
        return "unsupported_os", f"Trivy is not known to compare the packages of {name} with anything"
    if family in NO_SYSTEM and not listed:
        return "nothing_scanned", "Trivy knows no system in it, and does not say that it found any package"
    return "", ""


def _is_newer(scan: ImageScan, known: ImageScan) -> bool:
    if scan.scanned_at is None or known.scanned_at is None:
        return known.scanned_at is None
    return scan.scanned_at > known.scanned_at


def _name_of(item: Raw) -> str:
    try:
        meta = decode(item, wire.MetaOnly).metadata or wire.Meta()
    except NotUnderstood:
        return "one without a name"
    return printable(f"{meta.namespace or ''}/{meta.name or ''}")
