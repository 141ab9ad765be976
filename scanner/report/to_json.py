"""The JSON report, version 1; its JSON Schema is schemas/report-1.schema.json."""

from __future__ import annotations

from typing import Any

import msgspec

from scanner import __project__, __version__
from scanner.findings import SCHEMA_VERSION
from scanner.model import Cluster, Finding, Gap
from scanner.report import Destination, Ending


def sort_key(finding: Finding) -> tuple[object, ...]:
    """Severity, check, cluster, resource, id: the same order in every run."""
    r, cluster = finding.resource, finding.cluster
    place = (r.namespace or "", r.kind, r.name, r.container or "")
    return (finding.severity.rank, finding.check, cluster.name if cluster else "", *place, finding.id)


class JsonOutput:
    def __init__(self, path: str | None) -> None:
        self.destination = Destination(path)
        self._encoder = msgspec.json.Encoder()
        self._findings: list[Finding] = []

    def add(self, finding: Finding) -> None:
        self._findings.append(finding)

    def discard(self) -> None:
        self.destination.discard()

    def finish(self, ending: Ending) -> None:
        self._findings.sort(key=sort_key)
        encode, write = self._encoder.encode, self.destination.write
        write(encode(_head(ending))[:-1] + b',"findings":[')
        for i, finding in enumerate(self._findings):
            write((b",\n" if i else b"\n") + encode(finding))
        write(b"\n]}\n")
        self.destination.close()


def _head(ending: Ending) -> dict[str, Any]:
    counts = ending.counts
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": __project__, "version": __version__},
        "scan": ending.scan,
        "coverage": {
            "accounts": ending.accounts,
            "clusters": _cluster_coverage(ending),
            "objects": {
                "read": counts.read,
                "judged": counts.judged,
                "skipped": counts.skipped,
                "invalid": counts.invalid,
            },
            "files": {"read": counts.files_read, "failed": counts.files_failed},
        },
        "gaps": [_gap(cluster, gap) for cluster, gap in ending.gaps],
        "clusters": ending.clusters,
        "summary": ending.summary,
    }


def _cluster_coverage(ending: Ending) -> dict[str, int]:
    states = [c.data_plane.value for c in ending.clusters]
    return {
        "expected": len(states),
        "judged": states.count("complete"),
        "partial": states.count("partial"),
        "unread": states.count("not_read"),
    }


def _gap(cluster: Cluster | None, gap: Gap) -> dict[str, Any]:
    return {
        "provider": cluster.provider if cluster else "files",
        "account": cluster.account if cluster else None,
        "region": cluster.region if cluster else None,
        "cluster": cluster.name if cluster else None,
        "namespace": gap.namespace,
        "what": gap.what,
        "reason": gap.reason,
        "detail": gap.detail,
        "permission": gap.permission,
        "time": gap.time,
    }
