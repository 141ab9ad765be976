"""The JSON report, version 1. Its JSON Schema, schemas/report-1.schema.json, is generated from these types."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from scanner import __project__, __version__
from scanner.destination import Destination
from scanner.findings import SCHEMA_VERSION
from scanner.matrix import Matrix
from scanner.model import Account, Changes, Cluster, ClusterRef, Finding, Gap, GapReason, PlaneState
from scanner.report import Coverage, Ending, ScanInfo
from scanner.summary import Summary


class Tool(msgspec.Struct):
    name: str
    version: str


class ClusterCoverage(msgspec.Struct):
    expected: int | None
    judged: int
    partial: int
    unread: int


class ObjectCoverage(msgspec.Struct):
    read: int
    judged: int
    skipped: int
    invalid: int


class FileCoverage(msgspec.Struct):
    read: int
    failed: int


class ReportCoverage(msgspec.Struct):
    accounts: Coverage
    regions: Coverage
    clusters: ClusterCoverage
    objects: ObjectCoverage
    files: FileCoverage


class GapRow(msgspec.Struct):
    provider: str
    account: str | None
    region: str | None
    cluster: str | None
    cluster_id: str | None
    namespace: str
    what: str
    reason: GapReason
    detail: str
    permission: str
    by_policy: bool
    time: datetime | None


class Report(msgspec.Struct):
    """The JSON report, field for field."""

    schema_version: str
    tool: Tool
    scan: ScanInfo
    coverage: ReportCoverage
    gaps: list[GapRow]
    clusters: list[Cluster]
    summary: Summary
    matrix: Matrix
    changes: Changes | None
    findings: list[Finding]


class JsonOutput:
    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._findings: dict[str, Finding] = {}  # by id: a worse answer on a second look replaces the first

    def add(self, finding: Finding) -> None:
        self._findings[finding.id] = finding

    def finish(self, ending: Ending) -> None:
        findings = sorted((_resolved(f, ending) for f in self._findings.values()), key=sort_key)
        encode, write = msgspec.json.Encoder().encode, self._destination.write
        # One finding a line and one write, so that a large report is never in memory as a whole.
        write(encode(_without_findings(ending)).removesuffix(b"]}"))
        for i, finding in enumerate(findings):
            write((b",\n" if i else b"\n") + encode(finding))
        write(b"\n]}\n")
        self._destination.close()


def sort_key(finding: Finding) -> tuple[object, ...]:
    """Severity, check, cluster, resource, id: the same order in every run."""
    r, cluster = finding.resource, finding.cluster
    place = (r.namespace or "", r.kind, r.name, r.container or "")
    return (finding.severity.rank, finding.check, cluster.name if cluster else "", *place, finding.id)


def _without_findings(ending: Ending) -> Report:
    return Report(
        schema_version=SCHEMA_VERSION,
        tool=Tool(__project__, __version__),
        scan=ending.scan,
        coverage=_coverage(ending),
        gaps=[_gap_row(cluster, gap) for cluster, gap in ending.gaps],
        clusters=ending.clusters,
        summary=ending.summary,
        matrix=ending.matrix,
        changes=ending.changes,
        findings=[],
    )


def _resolved(finding: Finding, ending: Ending) -> Finding:
    former: Mapping[str, ClusterRef] = ending.former
    if finding.id in ending.lifecycles:
        finding = msgspec.structs.replace(finding, lifecycle=ending.lifecycles[finding.id])
    if not finding.cluster or finding.cluster.id not in former:
        return finding
    return msgspec.structs.replace(finding, cluster=former[finding.cluster.id])


def _coverage(ending: Ending) -> ReportCoverage:
    states, counts = [cluster.state for cluster in ending.clusters], ending.counts
    return ReportCoverage(
        ending.accounts,
        ending.regions,
        ClusterCoverage(
            # Where the clusters of an account or region could not be listed, nobody knows how many there are.
            expected=None if ending.accounts.refused or ending.regions.refused else len(states),
            judged=states.count(PlaneState.COMPLETE),
            partial=states.count(PlaneState.PARTIAL),
            unread=states.count(PlaneState.NOT_READ),
        ),
        ObjectCoverage(counts.read, counts.judged, counts.skipped, counts.invalid),
        FileCoverage(counts.files_read, counts.files_failed),
    )


def _gap_row(owner: Cluster | Account | None, gap: Gap) -> GapRow:
    cluster = owner if isinstance(owner, Cluster) else None
    account = owner.id or None if isinstance(owner, Account) else cluster.account if cluster else None
    return GapRow(
        provider=owner.provider if owner else "files",
        account=account,
        region=owner.region if owner else None,
        cluster=cluster.name if cluster else None,
        cluster_id=cluster.id if cluster else None,
        namespace=gap.namespace,
        what=gap.what,
        reason=gap.reason,
        detail=gap.detail,
        permission=gap.permission,
        by_policy=gap.by_policy,
        time=gap.time,
    )
