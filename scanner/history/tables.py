"""The tables of a history, and how one of an older version becomes one of this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from scanner.history.lifecycle import Event

VERSION = 2

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
    # since version 2: what else names it
    *(sa.Column(name, sa.Text, nullable=False, server_default="") for name in ("api_group", "cloud_id")),
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

# ---------------------------------------------------------------------------------------------------------------------
# Since version 2: who is told of it

# What a place is, for events about what is no longer there.
PLACES = sa.Table(
    "places",
    _METADATA,
    sa.Column("place", sa.Text, primary_key=True),
    *_texts("provider", "account", "region", "cluster_id", "cluster_uid", "cluster"),
    sqlite_with_rowid=False,
)
# Under which scope a cluster goes whose identity cannot be read, and under which it goes otherwise.
ALIASES = sa.Table(
    "aliases", _METADATA, sa.Column("alias", sa.Text, primary_key=True), *_texts("place"), sqlite_with_rowid=False
)
SINKS = sa.Table(
    "sinks",
    _METADATA,
    sa.Column("sink", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    *_times("since"),
    sqlite_autoincrement=True,
)
# What each sink was told last of each finding that is open there.
TOLD = sa.Table(
    "told",
    _METADATA,
    sa.Column("sink", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, primary_key=True),
    *_texts("digest"),
    *_times("at"),
    sqlite_with_rowid=False,
)
# The same of what could not be read, with what the scan had asked for, and the event, to close it by.
TOLD_UNREAD = sa.Table(
    "told_unread",
    _METADATA,
    sa.Column("sink", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, primary_key=True),
    *_texts("digest"),
    *_times("at"),
    *_texts("owner"),
    sa.Column("look", sa.LargeBinary, nullable=False),
    sa.Column("event", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
# What each sink is still to be told, oldest first.
OUTBOX = sa.Table(
    "outbox",
    _METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("sink", sa.Integer, nullable=False),
    *_texts("id"),  # of what it is about, "" where that is a scan
    *_times("queued_at"),
    sa.Column("activity", sa.Integer, nullable=False),
    sa.Column("baseline", sa.Boolean, nullable=False),
    sa.Column("event", sa.LargeBinary, nullable=False),
    sa.Index("outbox_by_sink", "sink", "number"),
    sqlite_autoincrement=True,
)
# What a sink will never take, and why.
DEAD = sa.Table(
    "dead",
    _METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sink", sa.Integer, nullable=False),
    *_texts("id"),
    *_times("queued_at"),
    sa.Column("activity", sa.Integer, nullable=False),
    sa.Column("baseline", sa.Boolean, nullable=False),
    sa.Column("event", sa.LargeBinary, nullable=False),
    *_times("refused_at"),
    *_texts("reason"),
)


def with_places() -> sa.Select[Any]:
    """Findings, with what their places are."""
    beside = [column for column in PLACES.c if column.name not in FINDINGS.c]
    return sa.select(*FINDINGS.c, *beside).outerjoin_from(FINDINGS, PLACES, PLACES.c.place == FINDINGS.c.place)


def create(connection: sa.Connection) -> None:
    """All of them, as they are today."""
    _METADATA.create_all(connection, checkfirst=False)


def _to_2(connection: sa.Connection) -> None:
    for name in ("api_group", "cloud_id"):
        connection.exec_driver_sql(f"ALTER TABLE findings ADD COLUMN {name} TEXT NOT NULL DEFAULT ''")
    tables = [PLACES, ALIASES, SINKS, TOLD, TOLD_UNREAD, OUTBOX, DEAD]
    _METADATA.create_all(connection, tables=tables, checkfirst=False)


# By the version that each leads to.
MIGRATIONS: Mapping[int, Callable[[sa.Connection], None]] = {2: _to_2}
