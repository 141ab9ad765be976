"""What sinks are still to be told: written in the transaction of the scan, gone when the receiver has it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import msgspec
import sqlalchemy as sa

from scanner.history.database import Database
from scanner.history.lifecycle import About, Change, State
from scanner.history.tables import DEAD, FINDINGS, OUTBOX, SINKS, TOLD, TOLD_UNREAD, with_places
from scanner.history.telling import DAY, HEARTBEAT, Damaged, Look, Telling, packed, unpacked
from scanner.report.ocsf_coverage import read_again
from scanner.report.ocsf_event import CLOSE, CREATE, UPDATE, renamed

AS_IT_IS = 0  # the activity of an event that has its own already
_BATCH = 1_000
_OF_SCANS = ("queued_at", "activity", "baseline", "event")


def behind(connection: sa.Connection, sinks: Iterable[str], now: int) -> frozenset[str] | None:
    """Open findings of which some sink has to be told, if they are seen as they are known; None for all."""
    found: set[str] = set()
    for name in sinks:
        sink = connection.scalar(sa.select(SINKS.c.sink).where(SINKS.c.name == name))
        if sink is None:
            return None
        found |= {row.id for row in connection.execute(_open(sink, now))}
    return frozenset(found)


def queue(connection: sa.Connection, telling: Telling, changes: Mapping[str, Change], now: int) -> None:
    """For each sink, what has happened since it was told last. To be called when the findings are written."""
    for name in telling.sinks:
        sink, baseline = _sink(connection, name, now)
        same = {"sink": sink, "baseline": baseline, "queued_at": now}
        for batch in _batches(_of_findings(connection, sink, telling, changes, now)):
            rows = [same | {"id": id, "activity": activity, "event": event} for id, activity, event, _ in batch]
            connection.execute(OUTBOX.insert(), rows)
            gone = [{"known_id": id} for id, activity, _, _ in batch if activity == CLOSE]
            told = [{"sink": sink, "id": id, "digest": row[2], "at": now} for id, *row in batch if row[0] != CLOSE]
            if gone:
                this = TOLD.c.id == sa.bindparam("known_id")
                connection.execute(TOLD.delete().where(TOLD.c.sink == sink, this), gone)
            if told:
                connection.execute(sa.insert(TOLD).prefix_with("OR REPLACE"), told)
        for id, activity, event in _of_unread(connection, sink, telling, now):
            connection.execute(OUTBOX.insert(), same | {"id": id, "activity": activity, "event": event})
    queue_summaries(connection, telling, now)


def queue_summaries(connection: sa.Connection, telling: Telling, now: int) -> None:
    for name in telling.sinks:
        sink = connection.scalar(sa.select(SINKS.c.sink).where(SINKS.c.name == name))
        if sink is None:  # it has not been told of any finding: its baseline is still to come
            continue
        same = {"sink": sink, "id": "", "baseline": False, "queued_at": now, "activity": AS_IT_IS}
        for event in telling.summaries:
            connection.execute(OUTBOX.insert(), same | {"event": event})


def _sink(connection: sa.Connection, name: str, now: int) -> tuple[int, bool]:
    """Its number, and whether it is told for the first time."""
    found = connection.scalar(sa.select(SINKS.c.sink).where(SINKS.c.name == name))
    if found is not None:
        return found, False
    made = connection.scalar(SINKS.insert().returning(SINKS.c.sink), {"name": name, "since": now})
    return int(made or 0), True


def _open(sink: int, now: int) -> sa.Select[Any]:
    """Findings that are open, and not as the sink was told, or not for long. That a list could not be read is told as
    what was not read, once for all checks."""
    known = FINDINGS.outerjoin(TOLD, sa.and_(TOLD.c.sink == sink, TOLD.c.id == FINDINGS.c.id))
    lately = TOLD.c.at.between(now - HEARTBEAT + 1, now + DAY)
    news = sa.or_(TOLD.c.id.is_(None), TOLD.c.digest != FINDINGS.c.digest, ~lately)
    columns = (FINDINGS.c.id, FINDINGS.c.digest, TOLD.c.digest)
    apart = FINDINGS.c.about != About.LIST.value
    return sa.select(*columns).select_from(known).where(FINDINGS.c.state != State.RESOLVED.value, apart, news)


def _of_findings(
    connection: sa.Connection, sink: int, telling: Telling, changes: Mapping[str, Change], now: int
) -> Iterator[tuple[str, int, bytes, str]]:
    """Id, activity, event and digest. What no longer goes by its id is closed first."""
    told = {change.was: id for id, change in changes.items() if change.after and change.was not in ("", id)}
    for was in connection.scalars(sa.select(TOLD.c.id).where(TOLD.c.sink == sink)).all() if told else ():
        event = telling.event_of(told[was]) if was in told else None
        if event:
            yield was, CLOSE, packed(renamed(unpacked(event), was)), ""
    for id, digest, known in connection.execute(_open(sink, now)).all():
        change = changes.get(id)
        event = telling.event_of(id) if change and change.after else None  # else it was not seen, or seen before
        if event:
            yield id, CREATE if known is None else UPDATE, event, digest
    for row in connection.execute(_resolved(sink)).mappings().all():
        try:
            event = telling.close_event(dict(row))
        except (ValueError, TypeError, OverflowError):  # somebody else has written into it: there is nothing to say
            connection.execute(TOLD.delete().where(TOLD.c.sink == sink, TOLD.c.id == row["id"]))
            continue
        yield row["id"], CLOSE, event, ""


def _resolved(sink: int) -> sa.Select[Any]:
    """Findings that the sink still has open, with their places."""
    told = sa.select(TOLD.c.id).where(TOLD.c.sink == sink)
    return with_places().where(FINDINGS.c.state == State.RESOLVED.value, FINDINGS.c.id.in_(told))


def _of_unread(connection: sa.Connection, sink: int, telling: Telling, now: int) -> Iterator[tuple[str, int, bytes]]:
    """Id, activity and event of what could not be read, or can be read again."""
    known = {row.id: row for row in connection.execute(TOLD_UNREAD.select().where(TOLD_UNREAD.c.sink == sink))}
    for id, found in telling.unread.items():
        row, look = known.pop(id, None), telling.looks.get(found.owner)
        if row and (_lately(row, found.digest, now) or not _covers(look, row)):
            continue  # a narrower look tells less of it
        asked = msgspec.json.encode(look)
        values = {"sink": sink, "at": now, "look": asked, **msgspec.structs.asdict(found)}
        connection.execute(sa.insert(TOLD_UNREAD).prefix_with("OR REPLACE"), values)
        yield id, UPDATE if row else CREATE, found.event
    for row in known.values():
        if not _covers(telling.looks.get(row.owner), row):
            continue
        connection.execute(TOLD_UNREAD.delete().where(TOLD_UNREAD.c.sink == sink, TOLD_UNREAD.c.id == row.id))
        with contextlib.suppress(Damaged):
            yield row.id, CLOSE, packed(read_again(unpacked(row.event), telling.scan_id, now))


def _lately(row: Any, digest: str, now: int) -> bool:
    """Whether the sink was told the same not long ago."""
    return bool(row.digest == digest and now - HEARTBEAT < row.at <= now + DAY)


def _covers(look: Look | None, row: Any) -> bool:
    """Whether what was unread then would be missing tonight too. Of a damaged row any look at it is believed."""
    try:
        then = msgspec.json.decode(row.look, type=Look | None)
    except (msgspec.DecodeError, TypeError):
        then = None
    return look is not None and (then is None or look.covers(then))


def _batches(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(islice(rows, _BATCH)):
        yield batch


class Letter(msgspec.Struct, frozen=True):
    """One event that waits for one sink; `activity` takes the place of its own, if it is not 0."""

    number: int
    activity: int
    baseline: bool
    event: bytes


class Standing(msgspec.Struct, frozen=True):
    """How far one sink is: times in seconds since 1970, `oldest` None where nothing waits."""

    name: str
    since: int
    open: int
    waiting: int
    oldest: int | None
    refused: int


class Outbox:
    """Raises HistoryError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def letters(self, sink: str, after: int, limit: int) -> list[Letter]:
        """The oldest of those behind the one of that number."""
        query = sa.select(*(OUTBOX.c[name] for name in Letter.__struct_fields__)).where(
            OUTBOX.c.sink == _number(sink), OUTBOX.c.number > after
        )
        with self._database.transaction("cannot be read") as connection:
            return [Letter(*row) for row in connection.execute(query.order_by(OUTBOX.c.number).limit(limit))]

    def settle(self, done: Sequence[int], refused: Mapping[int, str]) -> None:
        """Letters that their sink has, and those that it will never take, with the reason."""
        with self._database.transaction("cannot be written") as connection:
            for number, reason in refused.items():
                values = [sa.literal(self._database.now), sa.literal(reason)]
                shared = [column for column in OUTBOX.c if column.name in DEAD.c]
                chosen = sa.select(*shared, *values).where(OUTBOX.c.number == number)
                connection.execute(
                    DEAD.insert().from_select([*(c.name for c in shared), "refused_at", "reason"], chosen)
                )
            gone = [{"gone": number} for number in (*done, *refused)]
            if gone:
                connection.execute(OUTBOX.delete().where(OUTBOX.c.number == sa.bindparam("gone")), gone)

    def retry(self, sink: str) -> int:
        """Put back what was refused, but for what is no longer so: the sink has been told of it since, or will be. How
        many that is."""
        with self._database.transaction("cannot be written") as connection:
            refused = DEAD.c.sink == _number(sink)
            connection.execute(DEAD.delete().where(refused, DEAD.c.id != "", ~_is_last()))
            names = ("number", "sink", "id", *_OF_SCANS)
            chosen = sa.select(*(DEAD.c[name] for name in names)).where(refused)
            connection.execute(OUTBOX.insert().from_select(names, chosen))
            return connection.execute(DEAD.delete().where(refused)).rowcount

    def drop(self, sink: str) -> int:
        """Forget what was refused; how many that is. What is still so is told anew by the next scan."""
        with self._database.transaction("cannot be written") as connection:
            refused = DEAD.c.sink == _number(sink)
            for table in (TOLD, TOLD_UNREAD):
                this = sa.exists().where(refused, DEAD.c.id == table.c.id, DEAD.c.queued_at == table.c.at)
                of_sink = table.c.sink == _number(sink)
                connection.execute(table.delete().where(of_sink, this.where(DEAD.c.activity == CREATE)))
                connection.execute(
                    table.update().where(of_sink, this.where(DEAD.c.activity == UPDATE)).values(digest="")
                )
            return connection.execute(DEAD.delete().where(refused)).rowcount

    def forget(self, sink: str) -> bool:
        """All that is known of a sink: it is told everything anew if it is ever told again."""
        with self._database.transaction("cannot be written") as connection:
            for table in (TOLD, TOLD_UNREAD, OUTBOX, DEAD):
                connection.execute(table.delete().where(table.c.sink == _number(sink)))
            return bool(connection.execute(SINKS.delete().where(SINKS.c.name == sink)).rowcount)

    def standings(self) -> list[Standing]:
        """Of every sink that was ever told anything, by name."""
        opened = _count(TOLD) + _count(TOLD_UNREAD)
        oldest = sa.select(sa.func.min(OUTBOX.c.queued_at)).where(OUTBOX.c.sink == SINKS.c.sink).scalar_subquery()
        query = sa.select(SINKS.c.name, SINKS.c.since, opened, _count(OUTBOX), oldest, _count(DEAD))
        with self._database.transaction("cannot be read") as connection:
            return [Standing(*row) for row in connection.execute(query.order_by(SINKS.c.name))]

    def refused(self, sink: str, limit: int) -> list[tuple[bytes, str]]:
        """Events that a sink will never take, and why."""
        query = sa.select(DEAD.c.event, DEAD.c.reason).where(DEAD.c.sink == _number(sink))
        with self._database.transaction("cannot be read") as connection:
            return [(row.event, row.reason) for row in connection.execute(query.order_by(DEAD.c.number).limit(limit))]

    def alone(self, stop: threading.Event, say: Callable[[], None]) -> AbstractContextManager[bool]:
        """Waits until nobody else delivers, so that nothing is sent twice, or the last word first; False if that takes
        too long. `say` is called if it has to."""
        return self._database.alone(stop, say)

    def shrink(self) -> None:
        """Give back the room of what is gone."""
        self._database.shrink()


def _is_last() -> sa.ColumnElement[bool]:
    """Whether a refused event is the last that there is to say of what it is about."""
    known = [
        sa.exists().where(table.c.sink == DEAD.c.sink, table.c.id == DEAD.c.id, *more)
        for table in (TOLD, TOLD_UNREAD)
        for more in ((), (table.c.at == DEAD.c.queued_at,))
    ]
    is_open, is_same = sa.or_(known[0], known[2]), sa.or_(known[1], known[3])
    return sa.or_(sa.and_(DEAD.c.activity == CLOSE, ~is_open), sa.and_(DEAD.c.activity != CLOSE, is_same))


def _number(sink: str) -> sa.ScalarSelect[int]:
    return sa.select(SINKS.c.sink).where(SINKS.c.name == sink).scalar_subquery()


def _count(table: sa.Table) -> sa.ColumnElement[int]:
    found = sa.select(sa.func.count()).select_from(table).where(table.c.sink == SINKS.c.sink)
    return found.scalar_subquery()
