"""What a scan knows of earlier ones, and whom it tells what is new: --history and --deliver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scanner.cli.catalogue import catalogue
from scanner.cli.deliver import UNDELIVERED, open_sinks, send
from scanner.cli.history import opened
from scanner.cli.judge_images import source_row
from scanner.cli.options import Reporting
from scanner.clusters import Row, known_by
from scanner.collect import Estate
from scanner.config import Config, ConfigError, Settings
from scanner.history.recorder import HistoryError, Recorder, ScanRow
from scanner.history.telling import Look, Telling
from scanner.model import Account, Cluster, Finding, PlaneState, utc_now
from scanner.report import Ending
from scanner.report.ocsf_coverage import scanned_events, scope_of, unread_events
from scanner.sinks import Sink

if TYPE_CHECKING:
    from scanner.history.database import Database


@dataclass(slots=True)
class Memory:
    """`telling` is None where nobody is told."""

    database: Database
    recorder: Recorder
    sinks: Mapping[str, Sink]
    telling: Telling | None
    checks: frozenset[str]
    failed: str = ""  # why it could not be written
    lists_resolved: bool = False  # whether an output tells of what is resolved
    resolved: Sequence[Finding] = ()
    _looks: list[tuple[Row | str, Look]] = field(default_factory=list)  # at clusters, and at other scopes

    def look(self, estate: Estate) -> None:
        """That an account, or a source that belongs to none, was asked for what the checks need."""
        if not self.telling:
            return
        owner = estate.account or source_row(estate.name)
        look = Look(self.checks, _planes(owner), ("*",), at=int(estate.observed_at.timestamp()))
        self._looks.append((scope_of(owner), look))
        # A cloud whose accounts could not be listed goes by its provider's name, an account whose regions could not by
        # its own: now they could.
        if estate.account and not estate.account.refused:
            provider, id = estate.account.provider, estate.account.id
            self._looks += [(f"{provider}:{provider}", look), (f"{provider}:{id}", look)]

    def look_at(self, row: Row, estate: Estate) -> None:
        """The same of a cluster."""
        if self.telling and estate.cluster:
            asked, excluded = estate.inventory.asked, estate.inventory.excluded
            at = int(estate.observed_at.timestamp())
            look = Look(self.checks, _planes(estate.cluster), tuple(asked), tuple(excluded), at)
            self._looks += [(row, look), *((id, look) for id in estate.former if known_by(id))]
            if estate.cluster.uid:
                self._looks.append((estate.cluster.uid, look))

    def save(self, id: str, started_at: datetime, ending: Callable[[], Ending], scope: Callable[[Row], str]) -> None:
        """With what sinks are to be told. `ending` gives the end of the scan as it is if this succeeds, `scope` the id
        that a cluster has by now."""
        self.recorder.compare()
        end = ending()
        if self.telling:
            for owner, look in self._looks:
                self.telling.look(owner if isinstance(owner, str) else scope(owner), look)
            unread = (found for found in unread_events(end, in_part=False) if not self._is_old(found[0]))
            self.telling.end(unread, scanned_events(end))
        started, finished = int(started_at.timestamp()), int(utc_now().timestamp())
        try:
            self.recorder.save(ScanRow(id, started, finished, end.scan.complete))
            if self.lists_resolved:
                self.resolved = self.recorder.resolved(catalogue(), id)
        except HistoryError as error:
            self.failed = str(error)

    def _is_old(self, owner: str) -> bool:
        """Whether it was looked at later before, as where this is an older bundle."""
        look = self.telling.looks.get(owner) if self.telling else None
        return look is not None and look.at < self.recorder.last_look(owner)

    def give_up(self, ending: Ending) -> None:
        """Of an interrupted scan nothing is kept: what was not reached is not gone, and what was new is new the next
        time too. Sinks are told that it was interrupted."""
        if self.telling:
            self.telling.end((), scanned_events(ending))
            try:
                self.recorder.store.tell(self.telling)
            except HistoryError as error:
                self.failed = str(error)

    def close(self) -> None:
        if self.telling:
            self.telling.close()

    def deliver(self, *, quiet: bool) -> int:
        """What waits for the sinks, that of earlier scans too; 0, or the exit code."""
        if not self.sinks:
            return 0
        from scanner.history.outbox import Outbox

        try:
            return send(Outbox(self.database), self.sinks, self.sinks, quiet=quiet)
        except HistoryError as error:
            typer.echo(f"kubeposture: {error}", err=True)
            return UNDELIVERED


def remember(reporting: Reporting, config: Config, settings: Settings, scan_id: str, at: datetime) -> Memory | None:
    """None without --history, and what needs one. Raises ConfigError where it cannot be used: before anything is
    read."""
    wanted = "--fail-on-new" if reporting.fail_on_new else "--deliver" if reporting.deliver else ""
    if reporting.history == "off":
        if wanted:
            raise ConfigError(f"{wanted} needs a history to compare with: not --history off")
        return None
    sinks = open_sinks(config) if reporting.deliver else {}
    try:
        database = opened(Path(reporting.history) if reporting.history else None)
        from scanner.history.store import SqliteStore

        telling = Telling(tuple(sinks), scan_id, catalogue(), database.path.parent) if sinks else None
        recorder = Recorder(SqliteStore(database), at, bool(settings.known_exploited), telling)
    except HistoryError as error:
        raise ConfigError(str(error)) from None
    return Memory(database, recorder, sinks, telling, frozenset(check.id for check in settings.checks))


def _planes(owner: Cluster | Account) -> frozenset[str]:
    """Those that were asked for."""
    planes = {"control": owner.control_plane, "data": owner.data_plane}
    return frozenset(name for name, state in planes.items() if state is not PlaneState.NOT_ASKED)
