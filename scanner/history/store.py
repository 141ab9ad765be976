"""The history in a SQLite file: one row a finding, of which only the last state is kept.

A scan is one transaction, which takes the lock for writing first: of two scans at once the second compares with what
the first one wrote, and a scan that dies has written nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from sys import intern
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

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
from scanner.history.recorder import HistoryError, ScanRow, Snapshot
from scanner.kube import printable

VERSION = 1
DAY = 86_400
KEEP_RESOLVED = 90 * DAY
KEEP_SCANS = 400 * DAY
BUSY = 60.0  # seconds to wait for another scan that writes
_BATCH = 10_000

_METADATA = sa.MetaData()


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _times(*names: str, nullable: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=nullable) for name in names]


MIGRATED = sa.Table("migrations", _METADATA, sa.Column("version", sa.Integer, primary_key=True), *_times("applied_at"))
FINDINGS = sa.Table(
    "findings",
    _METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    # what it is of
    *_texts("check", "place", "namespace", "kind", "name", "container", "cluster", "account", "about"),
    # what was said of it last
    *_texts("severity", "status", "reason", "params", "digest"),
    sa.Column("exempted", sa.Boolean, nullable=False),
    # its life
    *_texts("state"),
    *_times("first_seen", "last_seen"),
    *_times("failed_at", "resolved_at", nullable=True),
    sa.Column("close_reason", sa.Text),
    sqlite_with_rowid=False,
)
SCANS = sa.Table(
    "scans",
    _METADATA,
    sa.Column("generation", sa.Integer, primary_key=True),
    *_texts("id"),
    *_times("started_at", "finished_at"),
    sa.Column("complete", sa.Boolean, nullable=False),
    *(sa.Column(event.value, sa.Integer, nullable=False) for event in Event),
    sqlite_autoincrement=True,  # a number that was once given is not given again
)
# When each check last looked at each place, and how much of it.
COVERAGE = sa.Table(
    "coverage",
    _METADATA,
    sa.Column("place", sa.Text, primary_key=True),
    sa.Column("check", sa.Text, primary_key=True),
    *_times("observed_at"),
    *_texts("params"),
    sa.Column("asked", sa.JSON, nullable=False),
    sa.Column("excluded", sa.JSON, nullable=False),
    sa.Column("refused", sa.JSON, nullable=False),
    sqlite_with_rowid=False,
)


def _create(connection: sa.Connection) -> None:
    _METADATA.create_all(connection, checkfirst=False)


MIGRATIONS: Mapping[int, Callable[[sa.Connection], None]] = {1: _create}

_KNOWN = tuple(name for name in Known.__struct_fields__)


class SqliteStore:
    """A history in one file, created where there is none. Raises HistoryError."""

    def __init__(self, path: Path, *, now: int) -> None:
        self.path, self._now = path, now
        with self._failing("cannot be used as a history"):
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # it tells where a cluster is weak
            self._engine = _engine(path)
            with self._engine.connect() as connection:
                self._prepare(connection)

    def _prepare(self, connection: sa.Connection) -> None:
        with _transaction(connection):
            found = set(sa.inspect(connection).get_table_names())
            if found and MIGRATED.name not in found:
                raise HistoryError(f"{printable(self.path)}: is a database of something else, not a history")
            version = connection.scalar(sa.select(sa.func.max(MIGRATED.c.version))) if found else 0
            if version is None:
                raise HistoryError(f"{printable(self.path)}: is damaged: it has no version")
            if version > VERSION:
                knows = f"this kubeposture knows version {VERSION}: update it"
                raise HistoryError(f"{printable(self.path)}: has history version {version}; {knows}")
            for number in range(version + 1, VERSION + 1):
                MIGRATIONS[number](connection)
                connection.execute(MIGRATED.insert(), {"version": number, "applied_at": self._now})
            connection.execute(MIGRATED.delete().where(MIGRATED.c.version < 0))  # where nothing can be written, say so
        _use_wal(connection)

    def load(self) -> Snapshot:
        with self._failing("cannot be read"), self._engine.connect() as connection, _transaction(connection):
            return _load(connection)

    def save(
        self, scan: ScanRow, tonight: Tonight, before: Snapshot, changes: Mapping[str, Change]
    ) -> Mapping[str, Change]:
        with self._failing("cannot be written"), self._engine.connect() as connection, _transaction(connection):
            if _generation(connection) != before.generation:
                before = _load(connection)
                changes = dict(compare(before.known, tonight, before.last))
            _write(connection, tonight, changes)
            _write_coverage(connection, tonight, before)
            row = {name: getattr(scan, name) for name in scan.__struct_fields__}
            connection.execute(SCANS.insert(), row | counts(changes))
            self._forget(connection)
        return changes

    def _forget(self, connection: sa.Connection) -> None:
        old = FINDINGS.c.resolved_at < self._now - KEEP_RESOLVED
        connection.execute(FINDINGS.delete().where(FINDINGS.c.state == State.RESOLVED.value, old))
        connection.execute(SCANS.delete().where(SCANS.c.finished_at < self._now - KEEP_SCANS))

    def rows(self, states: Iterable[State] = (), id: str = "") -> list[dict[str, Any]]:
        """Of findings, by place and check; all of them where no state is named."""
        query = sa.select(FINDINGS).order_by(
            *(FINDINGS.c[name] for name in ("cluster", "check", "namespace", "name", "id"))
        )
        if wanted := [state.value for state in states]:
            query = query.where(FINDINGS.c.state.in_(wanted))
        if id:
            query = query.where(FINDINGS.c.id == id)
        with self._failing("cannot be read"), self._engine.connect() as connection, _transaction(connection):
            return [dict(row) for row in connection.execute(query).mappings()]

    @contextlib.contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            reason = printable(getattr(error, "orig", None) or type(error).__name__)
            raise HistoryError(f"{printable(self.path)}: {what}: {reason}") from None
        except OSError as error:
            raise HistoryError(f"{printable(self.path)}: {what}: {error.strerror}") from None
        except (ValueError, TypeError) as error:  # what stands in it is none of what was written
            raise HistoryError(f"{printable(self.path)}: {what}: it is damaged: {printable(error)}") from None


def _engine(path: Path) -> sa.Engine:
    url = sa.URL.create("sqlite", database=str(path))
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY})
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _use_wal(connection: sa.Connection) -> None:
    """Two that switch at once refuse each other without waiting."""
    deadline = time.monotonic() + BUSY
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            return
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextlib.contextmanager
def _transaction(connection: sa.Connection) -> Iterator[None]:
    """The driver would begin at the first write: two scans would then compare with the same past."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    done = False
    try:
        yield
        connection.exec_driver_sql("COMMIT")
        done = True
    finally:
        if not done:
            with contextlib.suppress(SQLAlchemyError):  # of a full disk SQLite has rolled back itself
                connection.exec_driver_sql("ROLLBACK")


def _generation(connection: sa.Connection) -> int:
    return connection.scalar(sa.select(sa.func.max(SCANS.c.generation))) or 0


def _load(connection: sa.Connection) -> Snapshot:
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
            first_seen=times[0],
            last_seen=times[1],
            failed_at=times[2],
            resolved_at=times[3],
            close_reason=None if reason is None else Closed(reason),
        )
    looks = connection.execute(sa.select(COVERAGE.c.place, COVERAGE.c.check, COVERAGE.c.observed_at))
    return Snapshot(_generation(connection), known, {(place, check): at for place, check, at in looks})


def _write(connection: sa.Connection, tonight: Tonight, changes: Mapping[str, Change]) -> None:
    """What changed; of unchanged findings only when they were seen."""
    renamed = [{"was": change.was} for id, change in changes.items() if change.after and change.was not in ("", id)]
    if renamed:
        connection.execute(FINDINGS.delete().where(FINDINGS.c.id == sa.bindparam("was")), renamed)
    same = sa.update(FINDINGS).where(FINDINGS.c.id == sa.bindparam("known_id"))
    light = ("place", "params", "state", "last_seen", "failed_at", "resolved_at", "close_reason")
    for batch in _batches(_rows(tonight, changes, light=True)):
        connection.execute(same.values({name: sa.bindparam(name) for name in light}), batch)
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


_SAID = ("name", "container", "cluster", "account", "severity", "status", "reason", "exempted")


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
