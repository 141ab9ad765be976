"""The end of a scan as OCSF events: what was not read, and a Scan Activity of each cluster and of the scan.

Silence can then be told from calm: what was not read is a Compliance Finding without a result, under an id that stays
the same from scan to scan.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from scanner import __project__
from scanner.inventory import Counts
from scanner.kube import KINDS
from scanner.model import Account, Cluster, Gap, PlaneState
from scanner.report import Ending
from scanner.report.ocsf_event import (
    CANCELLED,
    CLOUDS,
    COMPLETED,
    COMPLIANCE,
    CREATE,
    ERROR,
    SCAN,
    Event,
    Place,
    bounded,
    closed,
    cluster_resource,
    event,
    in_region,
    milliseconds,
    uuid5,
)

GAP, ACCOUNT, CLUSTER, SCANNED = "coverage-gap", "coverage-account", "coverage-cluster", "scan"  # event codes
_TITLES = {
    GAP: "What was asked for should be readable",
    ACCOUNT: "Accounts and sources should be read completely",
    CLUSTER: "Clusters should be read completely",
}
_INFORMATIONAL, _MEDIUM, _HIGH = 1, 3, 4
_NEW, _SUPPRESSED = (1, "New"), (3, "Suppressed")
_SUCCESS, _FAILURE, _PARTIAL, _NOT_ASKED = (1, "Success"), (2, "Failure"), (99, "Partial"), (99, "Not Asked")
_STATES = {
    PlaneState.COMPLETE: (COMPLETED, _SUCCESS, _INFORMATIONAL),
    PlaneState.PARTIAL: (COMPLETED, _PARTIAL, _MEDIUM),
    PlaneState.NOT_READ: (ERROR, _FAILURE, _HIGH),
    PlaneState.NOT_ASKED: (COMPLETED, _NOT_ASKED, _INFORMATIONAL),
}
_FILES = Place("files", None, None)
Owner = Cluster | Account | None  # None for files


def ending_events(ending: Ending) -> Iterator[Event]:
    """What was not read, then what was scanned."""
    yield from (found for _, found in unread_events(ending))
    yield from scanned_events(ending)


def unread_events(ending: Ending, *, in_part: bool = True) -> Iterator[tuple[str, Event]]:
    """Gaps, then accounts and clusters that were not read completely, each with the scope that it is of; without
    `in_part` only those that were not read at all, or whose clusters are not known."""
    yield from _gaps(ending)
    yield from ((scope, found) for scope, found in _accounts(ending) if in_part or found["severity_id"] == _HIGH)
    gaps: dict[int, list[str]] = defaultdict(list)  # by identity of the Cluster object
    for owner, gap in ending.gaps:
        gaps[id(owner)].append(gap.sentence)
    for cluster in ending.clusters:
        if cluster.state is PlaneState.NOT_READ or (in_part and cluster.state is PlaneState.PARTIAL):
            yield cluster.id, _unread_cluster(ending, cluster, gaps[id(cluster)])


def scanned_events(ending: Ending) -> Iterator[Event]:
    """A Scan Activity of each cluster, that of the scan itself last."""
    for cluster in ending.clusters:
        yield _scanned_cluster(ending, cluster)
    yield _scanned(ending)


def _place(owner: Owner) -> Place:
    if isinstance(owner, Cluster):
        return Place(owner.provider, owner.account, owner.region)
    return Place(owner.provider, owner.id or None, owner.region) if owner else _FILES


def scope_of(owner: Owner) -> str:
    """What ids of things there start with. A source that belongs to no account has nothing but its name."""
    if isinstance(owner, Cluster):
        return owner.id
    return f"{owner.provider}:{owner.name}" if owner and not owner.id else _place(owner).scope


def _uid(*identity: str | bool | int) -> str:
    return "kpc1_" + hashlib.sha256(repr(identity).encode()).hexdigest()[:32]


def _unread(
    ending: Ending,
    code: str,
    uid: str,
    place: Place,
    message: str,
    details: list[str],
    *,
    severity: int,
    by_policy: bool = False,
) -> Event:
    """A Compliance Finding without a result."""
    time = ending.scan.finished_at
    found = event(
        COMPLIANCE,
        CREATE,
        _INFORMATIONAL if by_policy else severity,
        _SUPPRESSED if by_policy else _NEW,
        time,
        place,
        scan_id=ending.scan.id,
        key=uid,
        code=code,
        message=message,
    )
    if by_policy:
        found["status_detail"] = "closed on purpose by a policy of the organization"
    found["finding_info"] = {
        "uid": uid,
        "title": _TITLES[code],
        "desc": message,
        "types": ["coverage"],
        "analytic": {"type_id": 1, "type": "Rule", "uid": code, "name": _TITLES[code]},
        "last_seen_time": milliseconds(time),
    }
    found["compliance"] = {
        "control": code,
        "status_id": 2,
        "status": "Warning",
        "status_code": "unknown",
        "status_details": details,
    }
    return found


def _gaps(ending: Ending) -> Iterator[tuple[str, Event]]:
    """One of each thing that could not be read, whatever the reasons; of a namespace one for all of it."""
    alike: dict[tuple[str, str], list[tuple[Owner, Gap]]] = defaultdict(list)
    for owner, gap in ending.gaps:
        # The detail may name a request: it is no part of what the gap is, but where nothing else tells files apart.
        what = gap.what if owner else f"{gap.what}: {gap.detail}"
        within = "" if owner and gap.namespace != "*" else what
        scope = _scope_of_gap(owner, gap)
        alike[scope, _uid(GAP, scope, within, gap.namespace, gap.by_policy)].append((owner, gap))
    for (scope, uid), found in alike.items():
        yield scope, _gap(ending, found[0][0], [gap for _, gap in found], uid, scope)


def _scope_of_gap(owner: Owner, gap: Gap) -> str:
    """What runs inside a cluster is the same however that was reached."""
    if isinstance(owner, Cluster) and gap.what in KINDS:
        return owner.uid or owner.id
    return scope_of(owner)


def _gap(ending: Ending, owner: Owner, gaps: list[Gap], uid: str, scope: str) -> Event:
    name, first = owner.name if owner else "files", gaps[0]
    kinds = sorted({gap.what for gap in gaps})
    permissions = sorted({gap.permission for gap in gaps} - {""})
    reasons = ", ".join(sorted({gap.reason.value for gap in gaps}))
    details = [f"reason: {reasons}", *dict.fromkeys(f"detail: {gap.detail}" for gap in gaps)]
    details += [f"permission: {permission}" for permission in permissions]
    said = first.sentence if len(kinds) == 1 else f"{', '.join(kinds)} in namespace {first.namespace} could not be read"
    place, by_policy = _place(owner), all(gap.by_policy for gap in gaps)
    found = _unread(ending, GAP, uid, place, f"{name}: {said}", details, severity=_MEDIUM, by_policy=by_policy)
    namespace = "" if first.namespace == "*" else first.namespace
    kind = kinds[0] if len(kinds) == 1 else "lists"
    resource: Event = {"uid": bounded(f"{scope}|{kind}/{namespace}/*"), "name": "*", "type": kind}
    if namespace:
        resource["namespace"] = namespace
    found["resources"] = [resource, *([_resource(owner)] if isinstance(owner, Cluster) else [])]
    found["unmapped"] = {"reason": reasons, "by_policy": by_policy, "kinds": kinds}
    if permissions:
        found["remediation"] = {"desc": f"Grant {', '.join(permissions)}."}
        found["unmapped"]["permission"] = ", ".join(permissions)
    if times := [gap.time for gap in gaps if gap.time]:
        found["finding_info"]["last_seen_time"] = milliseconds(max(times))
    return found


def _accounts(ending: Ending) -> Iterator[tuple[str, Event]]:
    """Accounts, their regions, and sources that belong to none, of which anything is missing."""
    gaps: dict[tuple[str, bool], list[tuple[Account, Gap]]] = {}
    for owner, gap in ending.gaps:
        if isinstance(owner, Account):
            gaps.setdefault((scope_of(owner), gap.by_policy), []).append((owner, gap))
    for (scope, by_policy), found in gaps.items():
        yield scope, _unread_account(ending, scope, found, by_policy=by_policy)


def _unread_account(ending: Ending, scope: str, gaps: list[tuple[Account, Gap]], *, by_policy: bool) -> Event:
    refused = any(owner.refused for owner, _ in gaps)
    place, name = _place(gaps[0][0]), gaps[0][0].name
    state = "its clusters could not all be listed" if refused else "it was read in part"
    found = _unread(
        ending,
        ACCOUNT,
        _uid(ACCOUNT, scope, by_policy),
        place,
        f"{name}: {state}",
        [gap.sentence for _, gap in gaps],
        severity=_HIGH if refused else _MEDIUM,
        by_policy=by_policy,
    )
    cloud = CLOUDS.get(place.provider)
    resource: Event = {"uid": bounded(scope), "name": name, "type": cloud.account_resource if cloud else "Source"}
    found["resources"] = [resource | in_region(place)]
    found["unmapped"] = {"clusters_not_all_listed": refused, "gaps": len(gaps)}
    return found


def read_again(found: Event, scan_id: str, at: int) -> Event:
    """That what was not read in an earlier scan was read in this one; `at` is in seconds."""
    metadata = {"uid": uuid5(scan_id, found["finding_info"]["uid"]), "correlation_uid": scan_id}
    moment = datetime.fromtimestamp(at, UTC)
    verdict = {"status_id": 1, "status": "Pass", "status_code": "pass"}
    return closed(found, "read again") | {
        "time": milliseconds(moment),
        "metadata": found["metadata"] | metadata | {"original_time": moment},
        "compliance": found["compliance"] | verdict,
    }


def _resource(cluster: Cluster) -> Event:
    found = cluster_resource(_place(cluster), cluster.id, cluster.uid, cluster.name)
    if cluster.version:
        found["version"] = cluster.version
    return found


def _unread_cluster(ending: Ending, cluster: Cluster, gaps: list[str]) -> Event:
    whole = cluster.state is PlaneState.NOT_READ
    found = _unread(
        ending,
        CLUSTER,
        _uid(CLUSTER, cluster.id),
        _place(cluster),
        f"{cluster.name}: it was {'not read' if whole else 'read in part'}",
        [f"control plane: {cluster.control_plane}", f"data plane: {cluster.data_plane}", *gaps],
        severity=_HIGH if whole else _MEDIUM,
    )
    found["resources"] = [_resource(cluster), _resource(cluster)]
    found["unmapped"] = _planes(cluster)
    return found


def _planes(cluster: Cluster) -> Event:
    return {"control_plane": cluster.control_plane, "data_plane": cluster.data_plane, "id_source": cluster.id_source}


# ---------------------------------------------------------------------------------------------------------------------
# What was scanned


def _scanned_cluster(ending: Ending, cluster: Cluster) -> Event:
    activity, status, severity = _STATES[cluster.state]
    by_status = ending.summary.by_cluster.get(cluster.id, {})
    found = event(
        SCAN,
        activity,
        severity,
        status,
        cluster.observed_at,
        _place(cluster),
        scan_id=ending.scan.id,
        key=f"{SCANNED}/{cluster.id}",
        code=CLUSTER,
        message=f"{cluster.name}: {status[1].lower()}, {by_status.get('fail', 0)} fail",
    )
    former = [old for old, ref in ending.former.items() if ref.id == cluster.id]
    counts = ending.cluster_counts.get(id(cluster), Counts())
    found.update(_numbers(ending, counts, by_status.get("fail", 0)))
    found["unmapped"] = {"cluster": _resource(cluster), **_planes(cluster), "by_status": by_status, **_objects(counts)}
    if cluster.images:
        found["unmapped"]["images"] = msgspec.to_builtins(cluster.images)
    if former:  # under which findings may have gone out before it was known which cluster it is
        found["unmapped"]["former_uids"] = [bounded(old) for old in former]
    return found


def _scanned(ending: Ending) -> Event:
    scan, summary = ending.scan, ending.summary
    nothing = "nothing_read" in scan.exit_reasons
    activity, status, severity = _STATES[PlaneState.COMPLETE if scan.complete else PlaneState.PARTIAL]
    if nothing:
        activity, status, severity = _STATES[PlaneState.NOT_READ]
    if "interrupted" in scan.exit_reasons:
        activity = CANCELLED
    fails = summary.by_status["fail"]
    found = event(
        SCAN,
        activity,
        severity,
        status,
        scan.finished_at,
        _FILES,
        scan_id=scan.id,
        key=SCANNED,
        code=SCANNED,
        message=f"scan {status[1].lower()}: {len(ending.clusters)} clusters, {fails} fail, {len(ending.gaps)} gaps",
    )
    found.update(_numbers(ending, ending.counts, fails))
    found["start_time"], found["end_time"] = milliseconds(scan.started_at), milliseconds(scan.finished_at)
    found["duration"] = found["end_time"] - found["start_time"]
    found["unmapped"] = {
        "profile": scan.profile,
        "complete": scan.complete,
        "exit_code": ending.exit_code,
        "exit_reasons": scan.exit_reasons,
        "warnings": scan.warnings,
        "by_status": summary.by_status,
        "by_severity": summary.by_severity,
        "exempted": summary.exempted,
        "score": msgspec.to_builtins(summary.score),
        "accounts": msgspec.to_builtins(ending.accounts),
        "regions": msgspec.to_builtins(ending.regions),
        "clusters": dict(Counter(cluster.state.value for cluster in ending.clusters)),
        "gaps": len(ending.gaps),
        **_objects(ending.counts),
    }
    return found


def _numbers(ending: Ending, counts: Counts, fails: int) -> Event:
    found: Event = {
        "scan": {"uid": ending.scan.id, "name": __project__, "type_id": 99, "type": "Posture"},
        "total": counts.read,
        "num_skipped_items": counts.skipped,
        "num_detections": fails,
    }
    if counts.files_read or counts.files_failed:
        found["num_files"] = counts.files_read
    return found


def _objects(counts: Counts) -> Event:
    return {"judged": counts.judged, "invalid": counts.invalid, "files_failed": counts.files_failed}
