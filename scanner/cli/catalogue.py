"""kubeposture checks: what is checked, and why."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer

from scanner.check import Check, type_name
from scanner.cli.judge import catalogue
from scanner.config import ConfigError, nearest, shown

app = typer.Typer(help="The catalogue of checks.", no_args_is_help=True)


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("-o", "--output", help="table or json.", show_default=False)]


@app.command("list")
def list_checks(output: Output = Format.TABLE) -> None:
    """Every check with its severity and title."""
    checks = catalogue().values()
    if output is Format.JSON:
        _print_json([entry(check) for check in checks])
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = min(100, Console().width) if Console().is_terminal else 100
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("check", no_wrap=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("title")
    for check in checks:
        title = check.title if check.on else f"{check.title} (off)"
        table.add_row(Text(check.id), Text(check.severity.value), Text(title))
    Console(width=width, highlight=False).print(table)


@app.command("show")
def show_check(
    id: Annotated[str, typer.Argument(help="Id of the check.", show_default=False)], output: Output = Format.TABLE
) -> None:
    """One check: why it matters, how to fix it, its parameters and references."""
    checks = catalogue()
    if id not in checks:
        raise ConfigError(f"no check is named {id!r}{nearest(id, checks)}")
    if output is Format.JSON:
        _print_json(entry(checks[id]))
    else:
        typer.echo("\n".join(page(checks[id])))


def _print_json(value: object) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def entry(check: Check) -> dict[str, Any]:
    """What machines read of a check."""
    return {
        "id": check.id,
        "title": check.title,
        "severity": check.severity,
        "category": check.category,
        "scope": check.scope_name,
        "on": check.on,
        "why": check.why,
        "fix": check.fix,
        "controls": check.controls,
        "assessment_keys": check.assessment_keys,
        "refs": check.refs,
        "parameters": [
            {"name": p.name, "type": type_name(p.type), "default": p.default, "help": p.doc}
            for p in check.parameters.values()
        ],
        "required": check.required,
    }


def page(check: Check) -> Iterable[str]:
    """What people read of a check, line by line."""
    yield f"{check.id}: {check.title}"
    yield ""
    yield from _wrapped(check.why)
    yield ""
    yield from _wrapped(f"Fix: {check.fix}")
    yield ""
    yield f"severity  {check.severity.value}"
    yield f"judges    each {check.scope_name}{_when(check)}"
    for control in check.controls:
        yield f"control   {control}"
    for ref in check.refs:
        yield f"ref       {ref}"
    if check.required:
        yield f"requires  {' or '.join(check.required)}"
    if check.parameters:
        yield ""
        yield f"Parameters, set with --param {check.id}.NAME=VALUE:"
    for p in check.parameters.values():
        yield from _wrapped(f"{p.name} = {shown(p.default)}", "  ")
        yield from _wrapped(f"{p.doc} ({type_name(p.type)})", "      ")


def _when(check: Check) -> str:
    if check.always:
        return "; always on"
    return "" if check.on else "; off unless selected with -c"


def _wrapped(paragraph: str, indent: str = "") -> list[str]:
    """Lines that break between words only: names with hyphens stay whole."""
    import textwrap

    text = " ".join(paragraph.split())
    return textwrap.wrap(text, 96, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
