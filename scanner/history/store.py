"""The history in a SQLite file: one row a finding, of which only the last state is kept.

A scan is one transaction, which takes the lock for writing first: of two scans at once the second compares with what
the first one wrote, and a scan that dies has written nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from sys import intern
from typing import Any

import msgspec
import sqlalchemy as sa

from scanner.history import outbox
from scanner.history.database import Database
from scanner.history.lifecycle import (
    About,
    Change,
    Closed,
    Event,
    Known,
    Place,
    State,
    Tonight,
    compare,
    counts,
    is_old,
)
from scanner.history.recorder import ScanRow, Snapshot
from scanner.history.tables import ALIASES, COVERAGE, FINDINGS, PLACES, SCANS, TOLD, with_places
from scanner.history.telling import Telling

DAY = 86_400
KEEP_RESOLVED = 90 * DAY
KEEP_SCANS = 400 * DAY
_BATCH = 10_000
_SOME = 500  # values of one statement
_SKEW = 600  # seconds that clocks may differ
_LAST = 253_402_300_800  # the year 10000

_KNOWN = tuple(name for name in Known.__struct_fields__)


class SqliteStore:
    """A history in one file. Raises HistoryError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, sinks: Iterable[str] = ()) -> Snapshot:
        with self._database.transaction("cannot be read") as connection:
            return _load(connection, outbox.behind(connection, sinks, self._database.now))

    def save(
        self,
        scan: ScanRow,
        tonight: Tonight,
        before: Snapshot,
        changes: Mapping[str, Change],
        telling: Telling | None = None,
    ) -> Mapping[str, Change]:
        with self._database.transaction("cannot be written") as connection:
            if _generation(connection) != before.generation:
                before = _load(connection)
                changes = dict(compare(before.known, tonight, before.last))
            _write(connection, tonight, changes)
            _write_coverage(connection, tonight, before)
            row = {name: getattr(scan, name) for name in scan.__struct_fields__}
            connection.execute(SCANS.insert(), row | counts(changes))
            if telling:
                outbox.queue(connection, telling, changes, self._database.now)
            self._forget(connection)
        return changes

    def tell(self, telling: Telling) -> None:
        """What there is to tell of a scan that changes nothing: how it ended."""
        with self._database.transaction("cannot be written") as connection:
            outbox.queue_summaries(connection, telling, self._database.now)

    def resolved(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Rows of these findings, with their places."""
        found: list[dict[str, Any]] = []
        with self._database.transaction("cannot be read") as connection:
            for some in (ids[at : at + _SOME] for at in range(0, len(ids), _SOME)):
                rows = connection.execute(with_places().where(FINDINGS.c.id.in_(some)).order_by(FINDINGS.c.id))
                found += map(dict, rows.mappings())
        return found

    def _forget(self, connection: sa.Connection) -> None:
        now = self._database.now
        old = FINDINGS.c.resolved_at < now - KEEP_RESOLVED
        told = sa.exists().where(TOLD.c.id == FINDINGS.c.id)  # some sink still has it open
        connection.execute(FINDINGS.delete().where(FINDINGS.c.state == State.RESOLVED.value, old, ~told))
        connection.execute(SCANS.delete().where(SCANS.c.finished_at < now - KEEP_SCANS))

    def rows(self, states: Iterable[State] = (), id: str = "") -> list[dict[str, Any]]:
        """Of findings, by place and check; all of them where no state is named; `id` is what theirs start with."""
        query = sa.select(FINDINGS).order_by(
            *(FINDINGS.c[name] for name in ("cluster", "check", "namespace", "name", "id"))
        )
        if wanted := [state.value for state in states]:
            query = query.where(FINDINGS.c.state.in_(wanted))
        if id:
            query = query.where(FINDINGS.c.id.startswith(id, autoescape=True))
        with self._database.transaction("cannot be read") as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def _generation(connection: sa.Connection) -> int:
    return connection.scalar(sa.select(sa.func.max(SCANS.c.generation))) or 0


def _load(connection: sa.Connection, behind: frozenset[str] | None = frozenset()) -> Snapshot:
    known = {}
    for row in connection.execute(sa.select(FINDINGS.c.id, *(FINDINGS.c[name] for name in _KNOWN))):
        id, check, place, namespace, kind, about, params, digest, state, *times, reason = row
        known[id] = Known(
            check=intern(check),
            place=intern(place),
            namespace=intern(namespace),
            kind=intern(kind),
            about=About(about),
            params=intern(params),
            digest=digest,
            state=State(state),
            first_seen=_number(times[0]),
            last_seen=_number(times[1]),
            failed_at=None if times[2] is None else _number(times[2]),
            resolved_at=None if times[3] is None else _number(times[3]),
            close_reason=None if reason is None else Closed(reason),
        )
    looks = connection.execute(sa.select(COVERAGE.c.place, COVERAGE.c.check, COVERAGE.c.observed_at))
    ahead = time.time() + _SKEW  # a clock was wrong: nothing would ever be newer
    last = {(place, check): at for place, check, at in looks if _number(at) <= ahead}
    return Snapshot(
        _generation(connection), known, last, behind, frozenset(connection.scalars(sa.select(ALIASES.c.alias)))
    )


def _number(value: object) -> int:
    """A time, whatever SQLite has kept; raises ValueError."""
    if not isinstance(value, int) or not 0 <= value < _LAST:
        raise ValueError(f"{value!r} is no time")
    return value


def _write(connection: sa.Connection, tonight: Tonight, changes: Mapping[str, Change]) -> None:
    """What changed; of unchanged findings only when they were seen."""
    renamed = [{"was": change.was} for id, change in changes.items() if change.after and change.was not in ("", id)]
    if renamed:
        connection.execute(FINDINGS.delete().where(FINDINGS.c.id == sa.bindparam("was")), renamed)
    same = sa.update(FINDINGS).where(FINDINGS.c.id == sa.bindparam("known_id"))
    light = ("place", "params", "state", "last_seen", "failed_at", "resolved_at", "close_reason")
    for batch in _batches(_rows(tonight, changes, light=True)):
        connection.execute(same.values({name: sa.bindparam(name) for name in light}), batch)
    places = [{"place": place, **msgspec.structs.asdict(where)} for place, where in tonight.places.items()]
    if places:
        connection.execute(sa.insert(PLACES).prefix_with("OR REPLACE"), places)
    aliases = [{"alias": alias, "place": place} for alias, place in tonight.aliases.items()]
    if aliases:
        connection.execute(sa.insert(ALIASES).prefix_with("OR REPLACE"), aliases)
    whole = sa.insert(FINDINGS).prefix_with("OR REPLACE")
    for batch in _batches(_rows(tonight, changes, light=False)):
        connection.execute(whole, batch)


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, _BATCH)):
        yield batch


def _rows(tonight: Tonight, changes: Mapping[str, Change], *, light: bool) -> Iterator[dict[str, Any]]:
    for id, change in changes.items():
        after = change.after
        if after is None:
            continue
        same = change.event is Event.RESOLVED or (change.event is Event.UNCHANGED and change.was == id)
        if same is not light:
            continue
        row = {name: getattr(after, name) for name in _KNOWN}
        if light:
            yield row | {"known_id": id}
        else:
            seen = tonight.seen[id]
            yield row | {"id": id} | {name: getattr(seen, name) for name in _SAID}


_SAID = ("name", "container", "cluster", "account", "severity", "status", "reason", "exempted", "api_group", "cloud_id")


def _write_coverage(connection: sa.Connection, tonight: Tonight, before: Snapshot) -> None:
    last: Mapping[Place, int] = before.last
    rows = [
        {
            "place": place,
            "check": check,
            "observed_at": cover.observed,
            "params": cover.params,
            "asked": cover.asked,
            "excluded": cover.excluded,
            "refused": sorted(cover.refused),
        }
        for (place, check), cover in tonight.covers.items()
        if not is_old(tonight, last, (place, check))
    ]
    if rows:
        connection.execute(sa.insert(COVERAGE).prefix_with("OR REPLACE"), rows)
