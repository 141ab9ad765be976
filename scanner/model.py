"""The vocabulary: what every other module speaks. Frozen types, no I/O, no Kubernetes or cloud specifics."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Status(StrEnum):
    """What the evidence says. Exempted is not a status: it is a field beside it."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    UNKNOWN = "unknown"  # evidence is missing; never counted as a pass
    NOT_APPLICABLE = "not_applicable"
    ERROR = "error"  # the object or the check could not be understood


class Severity(StrEnum):
    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return _SEVERITY_RANK[self]


_SEVERITY_RANK = {s: i for i, s in enumerate(Severity)}

# When several shapes or duplicates of one subject disagree, the worst status is the finding's.
WORST_FIRST = (Status.FAIL, Status.ERROR, Status.UNKNOWN, Status.PASS, Status.NOT_APPLICABLE)


class GapReason(StrEnum):
    """Why something that was asked for could not be read."""

    FORBIDDEN = "forbidden"
    THROTTLED = "throttled"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    NOT_CONFIGURED = "not_configured"
    NO_SOURCE = "no_source"  # nothing was set up that would tell
    NOT_FOUND = "not_found"
    NOT_SCANNED = "not_scanned"
    BAD_DATA = "bad_data"
    SERVER_ERROR = "server_error"
    LOCATION_MISSING = "location_missing"
    LOCAL_ACCOUNT_ONLY = "local_account_only"  # the only credential offered is one that Entra ID does not control


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was asked for and not read.

    `what` is the plural resource name ("pods") or another short noun; `namespace` is "*" for the whole cluster;
    `permission` is the right that would close the gap, in the words of the platform that refused. `by_policy` is an
    explicit deny in a service control policy: closed on purpose.
    """

    what: str
    reason: GapReason
    detail: str = ""
    permission: str = ""
    namespace: str = "*"
    time: datetime | None = None
    by_policy: bool = False

    @property
    def sentence(self) -> str:
        where = "" if self.namespace == "*" else f" in namespace {self.namespace}"
        needed = f"; needed: {self.permission}" if self.permission else ""
        return f"{self.what}{where} could not be read: {self.detail or self.reason}{needed}"


class MissingEvidence(Exception):
    """Raised on reading evidence that is incomplete; the engine turns it into `unknown`."""

    def __init__(self, *gaps: Gap) -> None:
        super().__init__("; ".join(f"{g.what}: {g.reason}" for g in gaps))
        self.gaps = gaps


class Collected(msgspec.Struct, Generic[T], frozen=True):
    """A list that knows whether it is complete."""

    items: list[T] = []
    gaps: list[Gap] = []

    def all(self) -> list[T]:
        """Raises MissingEvidence unless nothing is missing."""
        if self.gaps:
            raise MissingEvidence(*self.gaps)
        return self.items


class Evidence(msgspec.Struct, frozen=True):
    """One value that a verdict rests on; `default` is the platform's default where the value was absent."""

    path: str
    value: str
    default: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """One check's answer for one subject. `reason` is a stable machine code, `message` is for people."""

    status: Status
    reason: str = ""
    message: str = ""
    evidence: tuple[Evidence, ...] = ()
    severity: Severity | None = None  # where this answer weighs less than the check


PASS = Verdict(Status.PASS)
NOT_SET = "not set"


def text(value: object) -> str:
    """A value as evidence shows it: in the spelling of the manifest."""
    if value is None:
        return NOT_SET
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(text(v) for v in value) + "]"
    return str(value)


def fail(message: str, *evidence: Evidence, reason: str = "", severity: Severity | None = None) -> Verdict:
    return Verdict(Status.FAIL, reason, message, evidence, severity)


def require(ok: bool, message: str, at: str, value: object, *, default: object = None, reason: str = "") -> Verdict:
    """Pass, or fail with one piece of evidence; `default` is shown where `value` is None and the default decided."""
    if ok:
        return PASS
    shown = None if value is not None or default is None else text(default)
    return Verdict(Status.FAIL, reason, message, (Evidence(at, text(value), shown),))


def not_applicable(reason: str) -> Verdict:
    return Verdict(Status.NOT_APPLICABLE, reason)


# ---------------------------------------------------------------------------------------------------------------------
# What is reported: these structs are the JSON contract, field for field


class Ref(msgspec.Struct, frozen=True):
    framework: str
    version: str | None
    id: str

    def __str__(self) -> str:
        """As checks and --ref spell it: cis-aks-1.8:4.2.1, nsa:Namespaces."""
        return f"{self.framework}{f'-{self.version}' if self.version else ''}:{self.id}"


class ParameterValue(msgspec.Struct, frozen=True):
    """`origin` is default, profile, config or command line."""

    name: str
    value: str
    origin: str


class SourceRef(msgspec.Struct, frozen=True):
    path: str
    line: int
    document: int


class ResourceRef(msgspec.Struct, frozen=True):
    api_group: str
    kind: str
    namespace: str | None
    name: str
    container: str | None = None
    cloud_id: str | None = None
    labels: dict[str, str] = {}
    managed_by: str | None = None
    source: SourceRef | None = None


class ClusterRef(msgspec.Struct, frozen=True):
    id: str
    uid: str | None
    name: str


class ExemptionNote(msgspec.Struct, frozen=True):
    reason: str
    owner: str
    expires: str | None


class Lifecycle(msgspec.Struct, frozen=True):
    state: str
    first_seen: datetime
    last_seen: datetime
    resolved_at: datetime | None
    close_reason: str | None


class Changes(msgspec.Struct):
    """How many findings are new and so on since the scans before; `incomparable` are those of which this scan tells
    nothing."""

    new: int
    resolved: int
    changed: int
    reopened: int
    unchanged: int
    incomparable: int


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One result, self-contained. `pods` holds up to ten names; `occurrences` counts all that show it."""

    schema_version: str
    scan_id: str
    id: str
    previous_ids: tuple[str, ...] = ()
    check: str
    title: str
    status: Status
    reason: str
    severity: Severity
    category: str
    scope: str
    question: str | None = None
    assessment_keys: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    provider: str
    account: str | None = None
    region: str | None = None
    cluster: ClusterRef | None
    tags: dict[str, str] = {}
    resource: ResourceRef
    message: str
    evidence: tuple[Evidence, ...] = ()
    remediation: str
    refs: tuple[Ref, ...] = ()
    parameters: tuple[ParameterValue, ...] = ()
    exemption: ExemptionNote | None = None
    occurrences: int
    pods: tuple[str, ...] = ()
    observed_at: datetime
    lifecycle: Lifecycle | None = None


class PlaneState(StrEnum):
    COMPLETE = "complete"
    PARTIAL = "partial"
    NOT_READ = "not_read"
    NOT_ASKED = "not_asked"


class Account(msgspec.Struct, kw_only=True):
    """An Azure subscription, AWS account or Google Cloud project.

    `refused` where its clusters could not be listed in full, `closed` where that is a region which a service control
    policy closes and nobody named; `clusters` is how many were listed.
    """

    id: str
    provider: str
    name: str
    region: str | None = None  # where one region of it is meant
    refused: bool = False
    closed: bool = False
    clusters: int = 0
    control_plane: PlaneState = PlaneState.NOT_ASKED
    data_plane: PlaneState = PlaneState.NOT_ASKED


class ImageCounts(msgspec.Struct):
    """Images of running containers, by how what is known of them was found; `no_digest` are those of which no node
    has told yet which image they run. The four add up to `running`."""

    running: int = 0
    by_digest: int = 0
    by_tag: int = 0
    not_scanned: int = 0
    no_digest: int = 0

    def count(self, how: str) -> None:
        self.running += 1
        setattr(self, how, getattr(self, how) + 1)


class Cluster(msgspec.Struct, kw_only=True):
    """One cluster: what the cloud's inventory and the API server say of it.

    `id` is the cloud's resource id where the cloud named it; `uid` that of its namespace kube-system; `cloud_id` is the
    resource id as the cloud writes it. `id_source` is cloud, kube_system_uid, config (cluster_ids of the configuration
    file), api_server (hash of CA and URL), or context (its name, where not even the server could be asked).
    """

    id: str
    uid: str | None = None
    id_source: str
    cloud_id: str | None = None
    provider: str
    name: str
    account: str | None = None
    region: str | None = None
    version: str | None = None
    tags: dict[str, str] = {}
    control_plane: PlaneState = PlaneState.NOT_ASKED
    data_plane: PlaneState = PlaneState.NOT_ASKED
    images: ImageCounts | None = None  # where a check of images was selected
    observed_at: datetime

    @property
    def state(self) -> PlaneState:
        """Of both planes together, of those that were asked for."""
        states = {self.control_plane, self.data_plane} - {PlaneState.NOT_ASKED}
        return states.pop() if len(states) == 1 else PlaneState.PARTIAL if states else PlaneState.NOT_ASKED

    @property
    def ref(self) -> ClusterRef:
        return ClusterRef(self.id, self.uid, self.name)


def utc_now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
