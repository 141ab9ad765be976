"""OCSF: security events, one a line, for a SIEM. docs/ocsf.md has the whole mapping.

A finding is a Compliance Finding, written while the scan runs; what was not read, and that the scan has ended, follow.
"""

from __future__ import annotations

import itertools
from typing import Any

from scanner.destination import Destination
from scanner.model import Finding, Status
from scanner.report import Ending
from scanner.report.ocsf_coverage import ending_events
from scanner.report.ocsf_event import (
    CLOSE,
    COMPLIANCE,
    CREATE,
    IN_PROGRESS,
    NEW,
    RESOLVED,
    SEVERITY_IDS,
    SUPPRESSED,
    UPDATE,
    Event,
    Place,
    bounded,
    cluster_resource,
    event,
    in_region,
    line,
    milliseconds,
    object_uid,
)
from scanner.report.ocsf_vulnerability import vulnerability_events

# The verdict. 2 is what OCSF has for "no result due to missing information".
COMPLIANCE_STATUSES = {
    Status.PASS: (1, "Pass"),
    Status.UNKNOWN: (2, "Warning"),
    Status.FAIL: (3, "Fail"),
    Status.ERROR: (99, "Error"),
    Status.NOT_APPLICABLE: (99, "Not Applicable"),
}
LIFECYCLE = {
    "new": (CREATE, NEW),
    "open": (UPDATE, IN_PROGRESS),
    "reopened": (CREATE, NEW),
    "resolved": (CLOSE, RESOLVED),
}


class OcsfOutput:
    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._seen: set[str] = set()  # ids of findings

    def add(self, finding: Finding) -> None:
        again = finding.id in self._seen
        self._seen.add(finding.id)
        self._destination.write(line(finding_event(finding, again=again)))

    def finish(self, ending: Ending) -> None:
        resolved = (finding_event(finding, again=True) for finding in ending.resolved)
        for found in itertools.chain(resolved, vulnerability_events(ending), ending_events(ending)):
            self._destination.write(line(found))
        self._destination.close()


def finding_event(finding: Finding, *, again: bool = False) -> Event:
    """A Compliance Finding. `again` is whether another one of it may have gone out: a second look has made its answer
    worse, or it is closed. So it has a uid of its own, and nobody takes it for the first one sent twice."""
    activity, status = _progress(finding)
    place = Place(finding.provider, finding.account, finding.region)
    found = event(
        COMPLIANCE,
        UPDATE if again and activity == CREATE else activity,
        SEVERITY_IDS[finding.severity],
        status,
        finding.observed_at,
        place,
        scan_id=finding.scan_id,
        key=f"{finding.id}/{finding.status}" if again else finding.id,
        code=finding.check,
        message=_message(finding),
    )
    if detail := _status_detail(finding):
        found["status_detail"] = detail
    found["finding_info"] = _finding_info(finding)
    found["compliance"] = _compliance(finding)
    if finding.remediation:
        found["remediation"] = {"desc": finding.remediation}
    found["resources"] = _resources(finding, place)
    found["unmapped"] = _unmapped(finding)
    return found


def _progress(finding: Finding) -> tuple[int, tuple[int, str]]:
    if finding.lifecycle:
        activity, status = LIFECYCLE[finding.lifecycle.state]
    else:  # nothing is known of earlier scans
        clean = finding.status in (Status.PASS, Status.NOT_APPLICABLE)
        activity, status = CREATE, RESOLVED if clean else NEW
    if finding.exemption and status is not RESOLVED:
        status = SUPPRESSED
    return activity, status


def _status_detail(finding: Finding) -> str:
    """Why it is suppressed or closed."""
    note = finding.exemption
    if note:
        until = f" until {note.expires}" if note.expires else ""
        return f"exempted{until}{f' by {note.owner}' if note.owner else ''}: {note.reason}"
    return finding.lifecycle.close_reason or "" if finding.lifecycle else ""


def _message(finding: Finding) -> str:
    resource = finding.resource
    name = f"{resource.namespace}/{resource.name}" if resource.namespace else resource.name
    container = f" [{resource.container}]" if resource.container else ""
    return f"{resource.kind} {name}{container}: {finding.message or finding.title}"


def _finding_info(finding: Finding) -> Event:
    found: Event = {
        "uid": finding.id,
        "title": finding.title,
        "types": [finding.category],
        "analytic": {"type_id": 1, "type": "Rule", "uid": finding.check, "name": finding.title},
        "last_seen_time": milliseconds(finding.observed_at),
    }
    if finding.message:
        found["desc"] = finding.message
    if finding.lifecycle:
        found["first_seen_time"] = milliseconds(finding.lifecycle.first_seen)
        found["last_seen_time"] = milliseconds(finding.lifecycle.last_seen)
    if finding.tags:
        found["tags"] = [{"name": name, "value": value} for name, value in finding.tags.items()]
    return found


def _compliance(finding: Finding) -> Event:
    # What is closed because it is gone or mended no longer fails, whatever was seen of it last.
    resolved = finding.lifecycle and finding.lifecycle.state == "resolved" and finding.status is Status.FAIL
    verdict = Status.PASS if resolved else finding.status
    status_id, status = COMPLIANCE_STATUSES[verdict]
    found: Event = {
        "control": finding.check,
        "status_id": status_id,
        "status": status,
        "status_code": finding.status.value,
    }
    if finding.controls:
        found["category"] = ", ".join(finding.controls)
    if finding.refs:
        found["standards"] = list(dict.fromkeys(_standard(ref.framework, ref.version) for ref in finding.refs))
        found["requirements"] = [str(ref) for ref in finding.refs]
    details = [finding.message] if finding.message else []
    for shown in finding.evidence:
        default = "" if shown.default is None else f" (default: {shown.default})"
        details.append(f"{shown.path}: {shown.value}{default}")
    if details:
        found["status_details"] = details
    if finding.parameters:
        found["control_parameters"] = [{"name": p.name, "value": p.value} for p in finding.parameters]
    return found


def _standard(framework: str, version: str | None) -> str:
    return f"{framework} {version}" if version else framework


def _resources(finding: Finding, place: Place) -> list[Event]:
    """The object, and its cluster where it has one."""
    resource, cluster = finding.resource, finding.cluster
    found: Event = {"uid": _resource_uid(finding, place), "name": resource.name, "type": resource.kind}
    if resource.api_group:
        found["group"] = {"name": resource.api_group}
        if resource.api_group.startswith("Microsoft."):
            found["type"] = f"{resource.api_group}/{resource.kind}"
    if resource.namespace:
        found["namespace"] = resource.namespace
    if resource.cloud_id and bounded(resource.cloud_id) != found["uid"]:
        found["uid_alt"] = bounded(resource.cloud_id)
    found.update(in_region(place))
    if resource.labels:
        found["labels"] = [f"{key}={value}" for key, value in resource.labels.items()]
    if data := _data(finding):
        found["data"] = data
    if not cluster:
        return [found]
    return [found, cluster_resource(place, cluster.id, cluster.uid, cluster.name)]


def _resource_uid(finding: Finding, place: Place) -> str:
    """Stable across scans, and the same for every check and container of the object."""
    resource = finding.resource
    if resource.cloud_id:
        # Azure is not strict about the case of its ids.
        azure = resource.cloud_id.lower().startswith("/subscriptions/")
        return bounded(resource.cloud_id.lower() if azure else resource.cloud_id)
    if resource.kind == "Image":
        return bounded(resource.name)
    around = finding.cluster.id if finding.cluster else resource.source.path if resource.source else place.scope
    return object_uid(around, resource.api_group, resource.kind, resource.namespace or "", resource.name)


def _data(finding: Finding) -> Event:
    resource, source = finding.resource, finding.resource.source
    found: Event = {}
    if resource.container:
        found["container"] = resource.container
    if resource.managed_by:
        found["managed_by"] = resource.managed_by
    if source:
        found["source"] = {"path": source.path, "line": source.line, "document": source.document}
    return found


def _unmapped(finding: Finding) -> Event:
    found: dict[str, Any] = {"scope": finding.scope, "occurrences": finding.occurrences}
    if finding.reason:
        found["reason"] = finding.reason
    if finding.question:
        found["question"] = finding.question
    if finding.assessment_keys:
        found["assessment_keys"] = finding.assessment_keys
    if finding.previous_ids:
        found["previous_ids"] = finding.previous_ids
    if finding.parameters:
        found["parameter_origins"] = [f"{p.name}={p.origin}" for p in finding.parameters]
    if finding.pods:
        found["pods"] = finding.pods
    return found
