"""What sinks are to be told of one scan: gathered while it runs, and written to the outbox with the history.

A sink is told of a finding when it is opened, when what is said of it changes, when it is closed, and every 25 days:
some forget what they do not hear of. What could not be read is told in the same way; how a scan ended, each time.
"""

from __future__ import annotations

import contextlib
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from scanner.check import Check
from scanner.history.recorder import HistoryError, digest_of
from scanner.kube import printable
from scanner.model import ClusterRef, Finding, Lifecycle, ResourceRef, Severity, Status
from scanner.report.ocsf import finding_event
from scanner.report.ocsf_event import Event, line

DAY = 86_400
HEARTBEAT = 25 * DAY
_IN_MEMORY = 16 * 1024 * 1024  # bytes of events, before they go to a file


class Look(msgspec.Struct, frozen=True):
    """How much of something a scan asked for, and when. `asked` is empty where nobody could be asked."""

    checks: frozenset[str]
    planes: frozenset[str]
    asked: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    at: int = 0

    def covers(self, other: Look) -> bool:
        """Whether what the other one could not read would be missing here too."""
        all_of_it = "*" in self.asked and not self.excluded
        same = (self.asked, self.excluded) == (other.asked, other.excluded)
        wide = self.checks >= other.checks and self.planes >= other.planes and self.at >= other.at
        return wide and (all_of_it or same or not other.asked)

    def beside(self, other: Look) -> Look:
        """Both looks at one thing together."""
        return Look(
            self.checks & other.checks,
            self.planes | other.planes,
            tuple(sorted({*self.asked, *other.asked})),
            tuple(sorted({*self.excluded, *other.excluded})),
            max(self.at, other.at),
        )


class Unread(msgspec.Struct, frozen=True):
    """Something that could not be read: a gap, an account or a cluster. `event` is packed; `owner` is whose look at it
    would show whether it can be read again."""

    id: str
    owner: str
    digest: str
    event: bytes


@dataclass(slots=True)
class Telling:
    """`folder` is where events wait that are too many for the memory."""

    sinks: tuple[str, ...]
    scan_id: str
    catalogue: Mapping[str, Check]
    folder: Path
    unread: dict[str, Unread] = field(default_factory=dict)
    looks: dict[str, Look] = field(default_factory=dict)  # by owner
    summaries: list[bytes] = field(default_factory=list)
    _where: dict[str, tuple[int, int]] = field(default_factory=dict)  # of each finding's event: offset and length
    _spool: tempfile.SpooledTemporaryFile[bytes] | None = None
    _failed: str = ""

    def take(self, finding: Finding) -> None:
        """What it says last counts. A disk that is full is told when the history is written."""
        data = packed(finding_event(finding))
        try:
            if self._spool is None:
                self._spool = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self.folder))  # noqa: SIM115
            offset = self._spool.seek(0, 2)
            self._spool.write(data)
        except OSError as error:
            self._failed = f"{printable(self.folder)}: cannot be written: {error.strerror}"
            return
        self._where[finding.id] = (offset, len(data))

    def look(self, owner: str, look: Look) -> None:
        known = self.looks.get(owner)
        self.looks[owner] = known.beside(look) if known else look

    def end(self, unread: Iterable[tuple[str, Event]], summaries: Iterable[Event]) -> None:
        """What is known when the scan is over; each of `unread` with its owner."""
        self.unread = {found.id: found for found in map(_unread, unread)}
        self.summaries = [packed(event) for event in summaries]

    def event_of(self, id: str) -> bytes | None:
        """The event of a finding that was seen tonight, packed; None where nobody thought that it was needed."""
        if self._failed:
            raise HistoryError(self._failed)
        if id not in self._where or self._spool is None:
            return None
        offset, length = self._where[id]
        try:
            self._spool.seek(offset)
            return self._spool.read(length)
        except OSError as error:
            raise HistoryError(f"{printable(self.folder)}: cannot be read: {error.strerror}") from None

    def close(self) -> None:
        if self._spool:
            with contextlib.suppress(OSError):  # of a full disk, what was not written yet
                self._spool.close()

    def close_event(self, row: Mapping[str, Any]) -> bytes:
        """Of a finding that is resolved."""
        return packed(finding_event(closed_finding(row, self.scan_id, self.catalogue)))


def packed(event: Event) -> bytes:
    return zlib.compress(line(event), 1)


class Damaged(ValueError):
    """Bytes that are no event, though nothing else was ever written there."""


def unpacked(data: bytes) -> Event:
    try:
        event: Event = msgspec.json.decode(zlib.decompress(data), type=Event)
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"is damaged in the outbox: {error}") from None
    return event


def _unread(found: tuple[str, Event]) -> Unread:
    owner, event = found
    said = digest_of([event["severity_id"], event["status_id"], event["unmapped"]])
    return Unread(event["finding_info"]["uid"], owner, said, packed(event))


def closed_finding(row: Mapping[str, Any], scan_id: str, catalogue: Mapping[str, Check]) -> Finding:
    """What is left to say of one that is resolved, by its row in the history with its place."""
    check = catalogue.get(row["check"])
    cluster = ClusterRef(row["cluster_id"], row["cluster_uid"] or None, row["cluster"]) if row["cluster_id"] else None
    at = datetime.fromtimestamp(row["resolved_at"], UTC)
    return Finding(
        schema_version="",
        scan_id=scan_id,
        id=row["id"],
        check=row["check"],
        title=check.title if check else row["check"],
        status=Status(row["status"]),
        reason=row["reason"],
        severity=Severity(row["severity"]),
        category=check.category if check else "",
        scope=check.scope_name if check else "",
        question=check.question if check else None,
        assessment_keys=check.assessment_keys if check else (),
        controls=check.controls if check else (),
        provider=row["provider"] or "",
        account=row["account"] or None,
        region=row["region"] or None,
        cluster=cluster,
        resource=ResourceRef(
            api_group=row["api_group"],
            kind=row["kind"],
            namespace=row["namespace"] or None,
            name=row["name"],
            container=row["container"] or None,
            cloud_id=row["cloud_id"] or None,
        ),
        message="",
        remediation=check.fix if check else "",
        refs=check.refs if check else (),
        occurrences=0,
        observed_at=at,
        lifecycle=Lifecycle(
            "resolved",
            datetime.fromtimestamp(row["first_seen"], UTC),
            datetime.fromtimestamp(row["last_seen"], UTC),
            at,
            row["close_reason"],
        ),
    )
