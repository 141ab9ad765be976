"""Compares what a scan saw with what was known before. Pure: no I/O, no clock.

A finding that is not seen is resolved only on positive evidence: the same check answered for its subject with the same
parameters, or a complete list no longer holds the subject. Everything else is incomparable, and changes nothing.
Times are seconds since 1970.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from scanner.model import Lifecycle, Status

EVERYTHING = "*"


class State(StrEnum):
    NEW = "new"
    OPEN = "open"
    RESOLVED = "resolved"
    REOPENED = "reopened"


class Closed(StrEnum):
    """Why a finding is resolved."""

    FIXED = "fixed"  # its subject was judged, or its list read
    DELETED = "deleted"  # its subject is no longer there


class Event(StrEnum):
    NEW = "new"
    RESOLVED = "resolved"
    CHANGED = "changed"
    REOPENED = "reopened"
    UNCHANGED = "unchanged"
    INCOMPARABLE = "incomparable"


class About(StrEnum):
    """What a finding's subject is."""

    OBJECT = "object"
    LIST = "list"  # that could not be read
    PARAMETER = "parameter"  # that nobody set


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A finding of this scan. `place` is the scope that it was judged in, `digest` of all that makes it a changed one;
    `fails` is whether a gate counts it."""

    check: str
    place: str
    namespace: str
    kind: str
    name: str
    container: str
    cluster: str
    account: str
    severity: str
    status: str
    reason: str
    exempted: bool
    about: About
    params: str
    digest: str
    observed: int
    fails: bool
    api_group: str = ""
    cloud_id: str = ""
    previous_ids: tuple[str, ...] = ()


class Clean(msgspec.Struct, frozen=True):
    """That a check passes, or does not apply, where it has failed before."""

    place: str
    check: str
    namespace: str
    params: str


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the history knows of a finding; `failed_at` is when it was first seen to fail since it was opened."""

    check: str
    place: str
    namespace: str
    kind: str
    about: About
    params: str
    digest: str
    state: State
    first_seen: int
    last_seen: int
    failed_at: int | None
    resolved_at: int | None = None
    close_reason: Closed | None = None

    @property
    def lifecycle(self) -> Lifecycle:
        return Lifecycle(
            self.state.value,
            _time(self.first_seen),
            _time(self.last_seen),
            None if self.resolved_at is None else _time(self.resolved_at),
            self.close_reason.value if self.close_reason else None,
        )


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class Cover(msgspec.Struct, frozen=True, kw_only=True):
    """What one check looked at in one place.

    `asked` are the namespaces that were asked for ("*" for all), less those that match `excluded`; `refused` are those
    of which something is missing ("*" where that is not known). `lists` is whether its subjects come from lists, so
    that one that is on none is not there. `kinds` are those that were read, where a check is about whatever is read.
    """

    params: str
    observed: int
    asked: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    refused: frozenset[str] = frozenset()
    lists: bool = False
    configured: bool = True
    kinds: frozenset[str] | None = None

    def answers(self, namespace: str) -> bool:
        """Whether nothing is missing of what was read there."""
        return not self.refused if namespace in ("", EVERYTHING) else not self.refused & {EVERYTHING, namespace}

    def whole(self, namespace: str) -> bool:
        """Whether all that is there was asked for and read."""
        if not self.answers(namespace):
            return False
        if namespace in ("", EVERYTHING):
            return EVERYTHING in self.asked and not self.excluded
        left_out = any(fnmatchcase(namespace, pattern) for pattern in self.excluded)
        return not left_out and bool({EVERYTHING, namespace} & set(self.asked))

    def beside(self, other: Cover) -> Cover:
        """Both looks at one place together: as old as the older one, and missing what either lacks."""
        same = (self.asked, self.excluded, self.params) == (other.asked, other.excluded, other.params)
        return Cover(
            params=self.params if self.params == other.params else "",
            observed=min(self.observed, other.observed),
            asked=self.asked if same else (),
            excluded=self.excluded,
            refused=self.refused | other.refused,
            lists=self.lists and other.lists,
            configured=self.configured and other.configured,
            kinds=self.kinds if self.kinds == other.kinds else frozenset(),
        )


Place = tuple[str, str]  # scope and check


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """What a scope is; "" for what it has not."""

    provider: str
    account: str
    region: str
    cluster_id: str
    cluster_uid: str
    cluster: str


@dataclass(slots=True)
class Tonight:
    """All that one scan saw, by finding id, and what it looked at."""

    seen: dict[str, Seen] = field(default_factory=dict)
    clean: dict[str, Clean] = field(default_factory=dict)
    covers: dict[Place, Cover] = field(default_factory=dict)
    places: dict[str, Where] = field(default_factory=dict)  # of what was seen, by scope
    aliases: dict[str, str] = field(default_factory=dict)  # scopes of clusters while less was known of them

    def cover(self, place: Place, cover: Cover) -> None:
        known = self.covers.get(place)
        self.covers[place] = known.beside(cover) if known else cover


class Change(msgspec.Struct, frozen=True):
    """What happened to one finding. `was` is the id that it is known under, "" for a new one; `after` is what is known
    from now on, None where that does not change. `fails` is whether it fails, unexempted, and did not before."""

    event: Event
    was: str
    after: Known | None = None
    fails: bool = False


def compare(known: Mapping[str, Known], tonight: Tonight, last: Mapping[Place, int]) -> Iterator[tuple[str, Change]]:
    """By finding id, what happened to each that is open or seen. `last` is when each place was last looked at: an older
    look tells nothing of it."""
    met: set[str] = set()
    for id, seen in tonight.seen.items():
        was = next((each for each in (id, *seen.previous_ids) if each in known), "")
        met.add(was)
        if is_old(tonight, last, (seen.place, seen.check)):
            yield id, Change(Event.INCOMPARABLE, was)
        else:
            yield id, _seen(known.get(was), was, seen)
    for id, row in known.items():
        if row.state is State.RESOLVED or id in met:
            continue
        closed = _closed(id, row, tonight, last)
        if closed is None:
            yield id, Change(Event.INCOMPARABLE, id)
            continue
        reason, at = closed
        after = msgspec.structs.replace(row, state=State.RESOLVED, resolved_at=at, close_reason=reason)
        yield id, Change(Event.RESOLVED, id, after)


def is_old(tonight: Tonight, last: Mapping[Place, int], place: Place) -> bool:
    cover = tonight.covers.get(place)
    return cover is None or cover.observed < last.get(place, cover.observed)


def counts(changes: Mapping[str, Change]) -> dict[str, int]:
    found = Counter(change.event for change in changes.values())
    return {event.value: found[event] for event in Event}


def _seen(row: Known | None, was: str, seen: Seen) -> Change:
    opened = row is None or row.state is State.RESOLVED
    event = Event.NEW if row is None else Event.REOPENED if opened else Event.UNCHANGED
    if event is Event.UNCHANGED and row and row.digest != seen.digest:
        event = Event.CHANGED
    failed_at = row.failed_at if row and not opened else None
    fails_first = failed_at is None and seen.status == Status.FAIL
    after = Known(
        check=seen.check,
        place=seen.place,
        namespace=seen.namespace,
        kind=seen.kind,
        about=seen.about,
        params=seen.params,
        digest=seen.digest,
        state=State(event.value) if opened else State.OPEN,
        first_seen=row.first_seen if row else seen.observed,
        last_seen=seen.observed,
        failed_at=seen.observed if fails_first else failed_at,
    )
    return Change(event, was, after, fails_first and seen.fails)


def _closed(id: str, row: Known, tonight: Tonight, last: Mapping[Place, int]) -> tuple[Closed, int] | None:
    """Why a finding that is not seen is resolved and since when; None where nothing proves it."""
    clean = tonight.clean.get(id)
    place = (clean.place, clean.check) if clean else (row.place, row.check)
    cover = tonight.covers.get(place)
    if cover is None or is_old(tonight, last, place):
        return None
    if clean:
        proven = clean.params == row.params and cover.answers(clean.namespace)
        return (Closed.FIXED, cover.observed) if proven else None
    reason = Closed.FIXED
    if row.about is About.PARAMETER:
        proven = cover.configured and cover.params != row.params and cover.answers(EVERYTHING)
    elif row.about is About.LIST:
        proven = cover.whole(row.namespace)
    else:
        same = cover.params == row.params and (cover.kinds is None or row.kind in cover.kinds)
        proven = same and cover.lists and cover.whole(row.namespace)
        reason = Closed.DELETED if cover.kinds is None else Closed.FIXED
    return (reason, cover.observed) if proven else None
