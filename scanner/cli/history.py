"""kubeposture history and diff: what is known of findings from scan to scan."""

from __future__ import annotations

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
    from scanner.history.lifecycle import Change
    from scanner.history.store import SqliteStore
    from scanner.model import Finding

_TIMES = ("first_seen", "last_seen", "failed_at", "resolved_at")


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


class Shown(StrEnum):
    OPEN = "open"
    RESOLVED = "resolved"
    ALL = "all"


app = typer.Typer(help="What is known of findings from scan to scan.", no_args_is_help=True)

HistoryFile = Annotated[Path, typer.Argument(help="The file that scans were given as --history.", show_default=False)]
Output = Annotated[Format, typer.Option("-o", "--output", help="table or json.", show_default=False)]
Report = Annotated[Path, typer.Argument(help="A report in JSON: scan with -o json=FILE.", show_default=False)]


def opened(path: Path) -> SqliteStore:
    """The history at a path; raises ConfigError where what keeps it is not installed, and HistoryError."""
    try:
        from scanner.history.store import SqliteStore
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("scanner"):
            raise
        raise ConfigError("--history needs SQLAlchemy: pip install 'kubeposture[history]'") from None
    return SqliteStore(path, now=int(time.time()))


@app.command("list")
def list_findings(
    path: HistoryFile,
    state: Annotated[Shown, typer.Option(help="open, resolved or all.", show_default=False)] = Shown.OPEN,
    output: Output = Format.TABLE,
) -> None:
    """Findings that are open, or were."""
    from scanner.history.lifecycle import State

    is_open = (State.NEW, State.OPEN, State.REOPENED)
    states = {Shown.OPEN: is_open, Shown.RESOLVED: (State.RESOLVED,), Shown.ALL: ()}[state]
    rows = _rows(path, states)
    if output is Format.JSON:
        _print_json(rows)
        return
    heads = ("state", "severity", "status", "first seen", "last seen", "check", "resource")
    widths = (8, 8, 7, 10, 10, 30, 15)
    lines = [
        (r["state"], r["severity"], r["status"], r["first_seen"][:10], r["last_seen"][:10], r["check"], _where(r))
        for r in rows
    ]
    _print_table(heads, widths, lines)


@app.command("show")
def show_finding(
    path: HistoryFile,
    id: Annotated[str, typer.Argument(help="Id of the finding: kp1_…", show_default=False)],
    output: Output = Format.TABLE,
) -> None:
    """All that is known of one finding."""
    from scanner.kube import printable

    rows = _rows(path, id=id)
    if not rows:
        raise ConfigError(f"{printable(path)}: knows no finding {printable(id)}")
    if output is Format.JSON:
        _print_json(rows[0])
        return
    for name, value in rows[0].items():
        typer.echo(f"{name + ':':<14}{'-' if value in (None, '') else printable(value, 80)}")


def _rows(path: Path, states: Iterable[Any] = (), id: str = "") -> list[dict[str, Any]]:
    from scanner.history.recorder import HistoryError
    from scanner.kube import printable

    if not path.is_file():
        raise ConfigError(f"{printable(path)}: no such history: scan with --history PATH")
    try:
        rows = opened(path).rows(states, id)
    except HistoryError as error:
        raise ConfigError(str(error)) from None
    for row in rows:
        for name in _TIMES:
            row[name] = None if row[name] is None else _time(row[name])
    return rows


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
