"""The SQLite file that a history is in: made where there is none, brought to this version, and its transactions."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from scanner.history.recorder import HistoryError
from scanner.history.tables import MIGRATED, MIGRATIONS, VERSION, create
from scanner.kube import printable

try:
    import fcntl
except ModuleNotFoundError:  # Windows: two deliveries at once send some events twice
    fcntl = None  # type: ignore[assignment]

BUSY = 60.0  # seconds to wait for another scan that writes
_DELIVERING = 600.0  # and for another one that delivers


class Database:
    """Raises HistoryError. Any thread may use it: each transaction has a connection of its own."""

    def __init__(self, path: Path, *, now: int) -> None:
        self.path, self.now = path, now
        with self._failing("cannot be used as a history"):
            if not path.parent.is_dir():
                raise HistoryError(f"{printable(path)}: cannot be used as a history: make its directory first")
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # it tells where a cluster is weak
            self._engine = _engine(path)
            with self._engine.connect() as connection:
                if not path.stat().st_size:  # it is heeded only before there is a table
                    connection.exec_driver_sql("PRAGMA auto_vacuum=INCREMENTAL")
                self._prepare(connection)

    def _prepare(self, connection: sa.Connection) -> None:
        with _transaction(connection):
            found = set(sa.inspect(connection).get_table_names())
            if found and MIGRATED.name not in found:
                raise HistoryError(f"{printable(self.path)}: is a database of something else, not a history")
            version = connection.scalar(sa.select(sa.func.max(MIGRATED.c.version))) if found else VERSION
            if version is None:
                raise HistoryError(f"{printable(self.path)}: is damaged: it has no version")
            if version > VERSION:
                knows = f"this kubeposture knows version {VERSION}: update it"
                raise HistoryError(f"{printable(self.path)}: has history version {version}; {knows}")
            if not found:
                create(connection)
            for number in range(version + 1, VERSION + 1):
                MIGRATIONS[number](connection)
            if version < VERSION or not found:
                connection.execute(MIGRATED.insert(), {"version": VERSION, "applied_at": self.now})
            connection.execute(MIGRATED.delete().where(MIGRATED.c.version < 0))  # where nothing can be written, say so
        _use_wal(connection)

    @contextlib.contextmanager
    def transaction(self, what: str) -> Iterator[sa.Connection]:
        """One that has the lock for writing from its start. `what` is how it is told that it fails."""
        with self._failing(what), self._engine.connect() as connection, _transaction(connection):
            yield connection

    @contextlib.contextmanager
    def alone(self, stop: threading.Event, say: Callable[[], None]) -> Iterator[bool]:
        """By a lock that dies with its process, on a file beside the history: to close the history's own would end
        SQLite's locks too."""
        if fcntl is None:
            yield True
            return
        beside = self.path.with_name(f"{self.path.name}-lock")
        with self._failing("cannot be locked"):
            file = os.fdopen(os.open(beside, os.O_CREAT | os.O_RDWR, 0o600), "rb")
        with file:
            deadline, locked = time.monotonic() + _DELIVERING, _lock(file)
            if not locked:
                say()
            while not locked and time.monotonic() < deadline and not stop.wait(0.2):
                locked = _lock(file)
            yield locked

    def shrink(self) -> None:
        """Give back the room of what was deleted."""
        with self._failing("cannot be written"), self._engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.executescript("PRAGMA incremental_vacuum")  # execute() would free one page

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


def _lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without such locks: two deliveries at once send some events twice
        return True
    return True


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
