"""kubeposture history and diff: what is known of findings from scan to scan."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from scanner.config import ConfigError

if TYPE_CHECKING:
    from scanner.history.database import Database
    from scanner.history.lifecycle import Change
    from scanner.history.outbox import Standing
    from scanner.model import Finding

_REFUSED = 20  # refused events that are shown
_TIMES = ("first_seen", "last_seen", "failed_at", "resolved_at")


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


class Shown(StrEnum):
    OPEN = "open"
    NEW = "new"
    RESOLVED = "resolved"
    ALL = "all"


app = typer.Typer(help="What is known of findings from scan to scan.", no_args_is_help=True)

HistoryFile = Annotated[
    Path | None, typer.Argument(help="The file that scans were given as --history.", show_default=False)
]
HistoryOption = Annotated[
    Path | None,
    typer.Option("--history", help="The file that scans were given.", show_default=False, rich_help_panel="Target"),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Configuration file; kubeposture.yaml here by default.", rich_help_panel="Target"),
]
Output = Annotated[Format, typer.Option("-o", "--output", help="table or json.", show_default=False)]
Report = Annotated[Path, typer.Argument(help="A report in JSON: scan with -o json=FILE.", show_default=False)]


def default_path() -> Path:
    """In the user's state directory, as the XDG Base Directory Specification has it."""
    state = os.environ.get("XDG_STATE_HOME") or ""
    folder = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return folder / "kubeposture" / "history.db"


def opened(path: Path | None) -> Database:
    """The history at a path, made where there is none; raises ConfigError where what keeps it is not installed, and
    HistoryError."""
    try:
        from scanner.history.database import Database
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("scanner"):
            raise
        raise ConfigError("--history needs SQLAlchemy: pip install 'kubeposture[history]'") from None
    if path is None:
        path = default_path()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            from scanner.kube import printable

            said = f"{printable(path.parent)}: cannot be made: {error.strerror}"
            raise ConfigError(f"{said}: name a file with --history") from None
    return Database(path, now=int(time.time()))


def existing(path: Path | None) -> Database:
    """The same of one that is there already."""
    from scanner.kube import printable

    path = path or default_path()
    if not path.is_file():
        raise ConfigError(f"{printable(path)}: no such history: scan with --history PATH")
    return opened(path)


@app.command("list")
def list_findings(
    path: HistoryFile = None,
    state: Annotated[Shown, typer.Option(help="open, new, resolved or all.", show_default=False)] = Shown.OPEN,
    output: Output = Format.TABLE,
) -> None:
    """Findings that are open, or were."""
    from scanner.history.lifecycle import State

    is_open = (State.NEW, State.OPEN, State.REOPENED)
    is_new = (State.NEW, State.REOPENED)
    states = {Shown.OPEN: is_open, Shown.NEW: is_new, Shown.RESOLVED: (State.RESOLVED,), Shown.ALL: ()}[state]
    rows = _rows(path, states)
    if output is Format.JSON:
        _print_json(rows)
        return
    heads = ("id", "state", "severity", "status", "since", "check", "resource")
    widths = (12, 8, 8, 7, 10, 27, 16)
    told = ("state", "severity", "status")
    lines = [(r["id"][:12], *(r[name] for name in told), r["first_seen"][:10], r["check"], _where(r)) for r in rows]
    _print_table(heads, widths, lines)


@app.command("show")
def show_finding(
    id: Annotated[str, typer.Argument(help="Id of the finding, or its first digits: kp1_…", show_default=False)],
    path: HistoryFile = None,
    output: Output = Format.TABLE,
) -> None:
    """All that is known of one finding."""
    from scanner.kube import printable

    rows = _rows(path, id=id)
    if len(rows) != 1:
        many = f"{len(rows)} findings whose ids start with" if rows else "no finding"
        raise ConfigError(f"{printable(path or default_path())}: knows {many} {printable(id)}")
    if output is Format.JSON:
        _print_json(rows[0])
        return
    for name, value in rows[0].items():
        typer.echo(f"{name + ':':<14}{'-' if value in (None, '') else printable(value, 80)}")


def _rows(path: Path | None, states: Iterable[Any] = (), id: str = "") -> list[dict[str, Any]]:
    from scanner.history.recorder import HistoryError

    try:
        database = existing(path)
        from scanner.history.store import SqliteStore

        rows = SqliteStore(database).rows(states, id)
    except HistoryError as error:
        raise ConfigError(str(error)) from None
    for row in rows:
        for name in _TIMES:
            row[name] = None if row[name] is None else _time(row[name])
    return rows


@app.command("sinks")
def show_sinks(path: HistoryFile = None, output: Output = Format.TABLE) -> None:
    """What the receivers of events have, what waits for them, and what they refused."""
    from scanner.history.recorder import HistoryError
    from scanner.kube import printable

    try:
        database = existing(path)
        from scanner.history.outbox import Outbox

        outbox = Outbox(database)
        found = [_sink_row(standing, outbox.refused(standing.name, _REFUSED)) for standing in outbox.standings()]
    except HistoryError as error:
        raise ConfigError(str(error)) from None
    if output is Format.JSON:
        _print_json(found)
        return
    heads = ("sink", "since", "open", "waiting", "refused", "oldest that waits")
    names = ("name", "since", "open", "waiting", "refused", "oldest")
    _print_table(heads, (21, 20, 9, 9, 9, 22), [[str(row[name] or "-") for name in names] for row in found])
    for row in found:
        for letter in row["why"]:
            what = f"{printable(row['name'])} refused {printable(letter['id'])}"
            typer.echo(f"{what}: {printable(letter['reason'], 500)}")


def _sink_row(standing: Standing, refused: Iterable[tuple[bytes, str]]) -> dict[str, Any]:
    """`why` has the oldest of what was refused."""
    times = {
        name: None if value is None else _time(value)
        for name, value in (("since", standing.since), ("oldest", standing.oldest))
    }
    letters = [{"id": _id_of(event), "reason": reason} for event, reason in refused]
    return {**msgspec.structs.asdict(standing), **times, "why": letters}


def _id_of(data: bytes) -> str:
    """Of the finding that an event is about, else of the event."""
    from scanner.history.telling import Damaged, unpacked

    try:
        event = unpacked(data)
    except Damaged:
        return "an event"
    about = event.get("finding_info") or event["metadata"]
    return str(about["uid"])


@app.command("forget")
def forget_sink(
    sink: Annotated[str, typer.Argument(help="Name of the sink.", show_default=False)], path: HistoryFile = None
) -> None:
    """Forget what a sink was told, and what waits for it: the next scan with --deliver tells it everything anew."""
    from scanner.history.recorder import HistoryError
    from scanner.kube import printable

    try:
        database = existing(path)
        from scanner.history.outbox import Outbox

        known = Outbox(database).forget(sink)
    except HistoryError as error:
        raise ConfigError(str(error)) from None
    if not known:
        raise ConfigError(f"no sink {printable(sink)} was ever told anything")
    typer.echo(f"{printable(sink)} is forgotten, with what waited for it")


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def diff(before: Report, after: Report, output: Output = Format.TABLE) -> None:
    """What two JSON reports say differently.

    Only an answer in the second one resolves a finding: write it with --status all. What it does not tell of is
    incomparable.
    """
    from scanner.history import reports
    from scanner.history.lifecycle import Event, counts

    old, new = reports.read(before), reports.read(after)
    changes = reports.compare_reports(old, new)
    found = {finding.id: finding for finding in (*old.findings, *new.findings)}
    rows = [_changed(id, change, found[id]) for id, change in changes.items() if change.event is not Event.UNCHANGED]
    rows.sort(
        key=lambda row: tuple(str(row[name]) for name in ("event", "cluster", "check", "namespace", "name", "id"))
    )
    if output is Format.JSON:
        _print_json({"changes": counts(changes), "findings": rows})
        return
    heads, widths = ("event", "severity", "status", "check", "resource"), (12, 8, 8, 34, 34)
    _print_table(heads, widths, [(r["event"], r["severity"], r["status"], r["check"], _where(r)) for r in rows])
    typer.echo(", ".join(f"{n:,} {name}" for name, n in counts(changes).items()))


def _changed(id: str, change: Change, finding: Finding) -> dict[str, Any]:
    r = finding.resource
    return {
        "event": change.event.value,
        "id": id,
        "check": finding.check,
        "severity": finding.severity.value,
        "status": finding.status.value,
        "cluster": finding.cluster.name if finding.cluster else "",
        "namespace": r.namespace or "",
        "kind": r.kind,
        "name": r.name,
        "container": r.container or "",
    }


def _where(row: dict[str, Any]) -> str:
    return "/".join(row[name] for name in ("cluster", "namespace", "kind", "name", "container") if row[name])


def _print_json(value: object) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def _print_table(heads: Sequence[str], widths: Sequence[int], rows: Iterable[Sequence[str]]) -> None:
    """At most 100 columns; of the last one, which names a resource, the end says most."""
    from scanner.kube import printable

    last = 100 - sum(widths[:-1]) - 2 * (len(widths) - 1)
    for row in (heads, *rows):
        cells = [f"{printable(cell, width):<{width}}" for cell, width in zip(row, widths[:-1], strict=False)]
        place = printable(row[-1], 1000)
        cells.append(place if len(place) <= last else f"…{place[-last + 1 :]}")
        typer.echo("  ".join(cells).rstrip())
