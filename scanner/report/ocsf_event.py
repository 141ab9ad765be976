"""What all OCSF events have in common, and how each becomes one line of bounded size.

The Open Cybersecurity Schema Framework, https://schema.ocsf.io. Events have the one form that is valid under its
versions 1.5 to 1.8: attributes that one of them lacks are left out, and what has no place goes into `unmapped`.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from scanner import __project__, __version__
from scanner.kube import printable
from scanner.model import Severity

VERSION = "1.5.0"
LIMIT = 32 * 1024  # bytes of a line with its end

Event = dict[str, Any]


class Class(NamedTuple):
    """A class of events, and the activities of it that are used."""

    uid: int
    name: str
    category_uid: int
    category_name: str
    activities: Mapping[int, str]


CREATE, UPDATE, CLOSE = 1, 2, 3
COMPLIANCE = Class(2003, "Compliance Finding", 2, "Findings", {CREATE: "Create", UPDATE: "Update", CLOSE: "Close"})
VULNERABILITY = Class(2002, "Vulnerability Finding", 2, "Findings", {CREATE: "Create"})
COMPLETED, CANCELLED, ERROR = 2, 3, 6
_SCANNED = {COMPLETED: "Completed", CANCELLED: "Cancelled", ERROR: "Error"}
SCAN = Class(6007, "Scan Activity", 6, "Application Activity", _SCANNED)

# How far somebody has come with a finding: not the verdict.
NEW, IN_PROGRESS, SUPPRESSED, RESOLVED = (1, "New"), (2, "In Progress"), (3, "Suppressed"), (4, "Resolved")
SEVERITY_IDS = {Severity.INFO: 1, Severity.LOW: 2, Severity.MEDIUM: 3, Severity.HIGH: 4, Severity.CRITICAL: 5}
SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical"}
_PRODUCT = {"name": __project__, "vendor_name": __project__, "version": __version__}


class Cloud(NamedTuple):
    """A cloud as OCSF names it, with the kind of its accounts, and the type of its clusters."""

    name: str
    account_type_id: int
    account_type: str
    account_resource: str
    cluster_resource: str


CLOUDS = {
    "aws": Cloud("AWS", 10, "AWS Account", "AWS::Account", "AWS::EKS::Cluster"),
    "azure": Cloud(
        "Azure",
        13,
        "Azure Subscription",
        "Microsoft.Resources/subscriptions",
        "Microsoft.ContainerService/managedClusters",
    ),
    "gcp": Cloud(
        "GCP",
        11,
        "GCP Project",
        "cloudresourcemanager.googleapis.com/Project",
        "container.googleapis.com/Cluster",
    ),
}


class Place(NamedTuple):
    """Where something is; `provider` need not be a cloud."""

    provider: str
    account: str | None
    region: str | None

    @property
    def scope(self) -> str:
        """What ids of things there start with that belong to no cluster."""
        return ":".join(filter(None, self))


def milliseconds(time: datetime) -> int:
    """Since 1970, in UTC: what OCSF calls timestamp_t. Never beyond the year 9999, which is as far as many go."""
    return min(round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000), _LAST_TIME)


_LAST_TIME = 253_402_300_799_999


@lru_cache(maxsize=16)
def _namespace(scan_id: str) -> bytes:
    return uuid.UUID(scan_id).bytes


def uuid5(scan_id: str, key: str) -> str:
    """RFC 9562, section 5.5: as uuid.uuid5 has it, in a fifth of the time."""
    name = _namespace(scan_id) + key.encode("utf-8", "surrogatepass")
    h = hashlib.sha1(name, usedforsecurity=False).hexdigest()
    return f"{h[:8]}-{h[8:12]}-5{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:32]}"


def event(
    kind: Class,
    activity: int,
    severity: int,
    status: tuple[int, str],
    time: datetime,
    place: Place,
    *,
    scan_id: str,
    key: str,
    code: str,
    message: str,
) -> Event:
    """What every event starts with. `key` names it within its scan: sent again, it has the same uid."""
    cloud = _cloud(place)
    type_name = kind.activities[activity]
    found: Event = {
        "activity_id": activity,
        "activity_name": type_name,
        "category_uid": kind.category_uid,
        "category_name": kind.category_name,
        "class_uid": kind.uid,
        "class_name": kind.name,
        "type_uid": kind.uid * 100 + activity,
        "type_name": f"{kind.name}: {type_name}",
        "time": milliseconds(time),
        "severity_id": severity,
        "severity": SEVERITIES[severity],
        "status_id": status[0],
        "status": status[1],
        "message": message,
        "metadata": {
            "version": VERSION,
            "profiles": ["cloud"] if cloud else [],
            "product": _PRODUCT,
            "uid": uuid5(scan_id, key),
            "correlation_uid": scan_id,
            "event_code": code,
            "log_name": __project__,
            "original_time": time,
        },
    }
    if cloud:
        found["cloud"] = cloud
    return found


def _cloud(place: Place) -> Event | None:
    cloud = CLOUDS.get(place.provider)
    if not cloud:
        return None
    found: Event = {"provider": cloud.name}
    if place.region:
        found["region"] = place.region
    if place.account:
        uid = bounded(place.account)
        found["account"] = {"uid": uid, "type_id": cloud.account_type_id, "type": cloud.account_type}
        if place.provider == "gcp":
            found["project_uid"] = uid
    return found


def with_activity(found: Event, activity: int) -> Event:
    """The same Compliance Finding, as something else that happens to it."""
    name = COMPLIANCE.activities[activity]
    types = {"type_uid": COMPLIANCE.uid * 100 + activity, "type_name": f"{COMPLIANCE.name}: {name}"}
    return found | {"activity_id": activity, "activity_name": name} | types


def closed(found: Event, detail: str) -> Event:
    return with_activity(found, CLOSE) | {"status_id": 4, "status": "Resolved", "status_detail": detail}


def renamed(found: Event, was: str) -> Event:
    """That the same finding is no longer known under an older id."""
    now = found["finding_info"]["uid"]
    metadata = found["metadata"] | {"uid": uuid5(found["metadata"]["correlation_uid"], was)}
    info = found["finding_info"] | {"uid": was}
    return closed(found, f"goes by {now} from now on") | {"metadata": metadata, "finding_info": info}


_LONGEST_UID = 512


def bounded(uid: str) -> str:
    """An id as it is, or what it starts with and a hash of the whole."""
    if len(uid) <= _LONGEST_UID:
        return uid
    return f"{uid[: _LONGEST_UID - 33]}~{hashlib.sha256(uid.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def object_uid(around: str, group: str, kind: str, namespace: str, name: str) -> str:
    """Of what no cloud gives an id to: `around` is the id of its cluster, or its file."""
    return bounded(f"{around}|{f'{group}/' if group else ''}{kind}/{namespace}/{name}")


def cluster_resource(place: Place, id: str, uid: str | None, name: str) -> Event:
    cloud = CLOUDS.get(place.provider)
    kind = cloud.cluster_resource if cloud else "Kubernetes Cluster"
    if "/connectedclusters/" in id.lower():
        kind = "Microsoft.Kubernetes/connectedClusters"
    found: Event = {"uid": bounded(id), "name": name, "type": kind}
    if uid:
        found["uid_alt"] = bounded(uid)
    return found | in_region(place)


def in_region(place: Place) -> Event:
    """What a resource says of its region, which OCSF knows in clouds only."""
    return {"region": place.region} if place.region and place.provider in CLOUDS else {}


# ---------------------------------------------------------------------------------------------------------------------
# Lines

_ENCODER = msgspec.json.Encoder()
_ESCAPED = re.compile(rb"\\[bfnrtu]")
# How long texts and how many items of lists may be where a line is too long. What is left by the last fits for sure.
_STAGES = ((2000, 50), (500, 25), (150, 10), (40, 5))
_WHOLE = frozenset({"uid", "uid_alt", "correlation_uid", "event_code", "control"})  # ids are never cut


def line(found: Event) -> bytes:
    """One line of JSON. What does not show is escaped; what is too long is cut, and `unmapped.truncated` says so."""
    try:
        data = _ENCODER.encode(found)
    except UnicodeEncodeError:  # half of a surrogate pair
        data = b""
    if not data or not _shows(data):
        found = _printable(found)
        data = _ENCODER.encode(found)
    if len(data) < LIMIT:
        return data + b"\n"
    found["unmapped"] = {**found.get("unmapped", {}), "truncated": True}
    for length, items in _STAGES:
        data = _ENCODER.encode(_cut(found, length, items))
        if len(data) < LIMIT:
            break
    return data + b"\n"


def _shows(data: bytes) -> bool:
    """Whether nothing in JSON needs to be escaped for people. Control characters of ASCII are, but the last."""
    if b"\\" in data and _ESCAPED.search(data):
        return False
    return b"\x7f" not in data if data.isascii() else data.decode().isprintable()


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value, LIMIT)
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list | tuple) else value


def _cut(value: Any, length: int, items: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= length else value[: length - 1] + "…"
    if isinstance(value, dict):
        return {key: item if key in _WHOLE else _cut(item, length, items) for key, item in value.items()}
    return [_cut(item, length, items) for item in value[:items]] if isinstance(value, list | tuple) else value
