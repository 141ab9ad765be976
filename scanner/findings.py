"""Findings: one result, self-contained, under an id that stays the same from scan to scan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase

import msgspec

from scanner.check import Check
from scanner.kube import Resource, Source
from scanner.model import (
    ClusterRef,
    Evidence,
    Finding,
    ParameterValue,
    ResourceRef,
    Severity,
    SourceRef,
    Verdict,
)

SCHEMA_VERSION = "1.0"


def finding_id(check: str, scope_id: str, resource: Resource, key: str) -> str:
    """Stable across scans: no list index, image, message, line, or pod name where a controller exists."""
    # Clouds are not strict about the case of names; for what lives there the scope id is the whole identity anyway.
    name = resource.name.casefold() if resource.cloud_id else resource.name
    identity = [1, check, scope_id, resource.group, resource.kind, resource.namespace, name, key]
    return "kp1_" + hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:32]


def shown(labels: Mapping[str, str], patterns: Iterable[str]) -> dict[str, str]:
    """Only labels and tags on the allow-list, in whatever case clouds spell them: others may hold anything."""
    wanted = [pattern.lower() for pattern in patterns]
    return {k: v for k, v in labels.items() if any(fnmatchcase(k.lower(), pattern) for pattern in wanted)}


@dataclass(frozen=True, slots=True)
class Context:
    """What findings of one cluster, cloud account or file set have in common.

    `scope_id` is the base of ids; for files each object's own path replaces it. `locate` gives the line of a path
    inside an object.
    """

    scan_id: str
    scope_id: str
    name: str
    provider: str
    observed_at: datetime
    cluster: ClusterRef | None = None
    account: str | None = None
    region: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    locate: Callable[[Source, str], int] = lambda source, path: source.line
    unlisted: tuple[str, ...] = ()  # of an account: kinds of clusters whose refused list hides what runs inside them


@dataclass(frozen=True, slots=True)
class Findings:
    """Makes the findings of one cluster or file set; `labels` are globs of the label keys that may be shown."""

    context: Context
    labels: tuple[str, ...]
    namespace_labels: Mapping[str, Mapping[str, str]]

    def make(
        self,
        check: Check,
        verdict: Verdict,
        severity: Severity,
        resource: Resource,
        key: str,
        *,
        parameters: tuple[ParameterValue, ...] = (),
        occurrences: int = 1,
        pods: tuple[str, ...] = (),
        source: Source | None = None,
    ) -> Finding:
        context = self.context
        scope_id = source.scope if source else context.scope_id
        return Finding(
            schema_version=SCHEMA_VERSION,
            scan_id=context.scan_id,
            id=finding_id(check.id, scope_id, resource, key),
            check=check.id,
            title=check.title,
            status=verdict.status,
            reason=verdict.reason,
            severity=severity,
            category=check.category,
            scope=check.scope_name,
            question=check.question,
            assessment_keys=check.assessment_keys,
            controls=check.controls,
            provider=context.provider,
            account=context.account,
            region=context.region,
            cluster=context.cluster,
            tags=shown(context.tags, self.labels),
            resource=self._resource_ref(resource, key, source, verdict.evidence),
            message=verdict.message,
            evidence=verdict.evidence,
            remediation=check.fix,
            refs=check.refs,
            parameters=parameters,
            occurrences=occurrences,
            pods=pods,
            observed_at=context.observed_at,
        )

    def _resource_ref(
        self, resource: Resource, key: str, source: Source | None, evidence: tuple[Evidence, ...]
    ) -> ResourceRef:
        place = None
        if source:
            line = self.context.locate(source, evidence[0].path if evidence else "")
            place = SourceRef(source.path, line, source.document)
        labels = {**self.namespace_labels.get(resource.namespace, {}), **resource.labels}
        return ResourceRef(
            api_group=resource.group,
            kind=resource.kind,
            namespace=resource.namespace or None,
            name=resource.name,
            container=key or None,
            cloud_id=resource.cloud_id or None,
            labels=shown(labels, self.labels),
            managed_by=resource.managed_by,
            source=place,
        )
