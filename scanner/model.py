"""The vocabulary: what every other module speaks. Frozen types, no I/O, no Kubernetes or cloud specifics."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec


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


T = TypeVar("T")

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
    NOT_FOUND = "not_found"
    NOT_SCANNED = "not_scanned"
    BAD_DATA = "bad_data"
    SERVER_ERROR = "server_error"
    LOCATION_MISSING = "location_missing"


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was asked for and not read.

    `what` is the plural resource name ("pods") or another short noun; `namespace` is "*" for the whole cluster;
    `permission` is the right that would close the gap, in the words of the platform that refused.
    """

    what: str
    reason: GapReason
    detail: str = ""
    permission: str = ""
    namespace: str = "*"
    time: datetime | None = None


class MissingEvidence(Exception):
    """Raised on reading evidence that is incomplete; the engine turns it into `unknown`."""

    def __init__(self, *gaps: Gap) -> None:
        super().__init__("; ".join(f"{g.what}: {g.reason}" for g in gaps))
        self.gaps = gaps


@dataclass(frozen=True, slots=True)
class Collected(Generic[T]):
    """A list that knows whether it is complete."""

    items: tuple[T, ...] = ()
    gaps: tuple[Gap, ...] = ()

    def all(self) -> tuple[T, ...]:
        """Every item; raises MissingEvidence where the list is not known to be complete."""
        if self.gaps:
            raise MissingEvidence(*self.gaps)
        return self.items


def utc_now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
