"""kubeposture checks: what is checked, and why."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer

from scanner.check import Check, type_name
from scanner.cli.judge import catalogue
from scanner.config import ConfigError, nearest
from scanner.model import Ref, text

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

    width = min(100, Console().width) if sys.stdout.isatty() else 100
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("check", no_wrap=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("title")
    for check in checks:
        off = "" if check.on or check.id == "k8s-invalid-object" else " (off)"
        table.add_row(Text(check.id), Text(check.severity.value), Text(check.title + off))
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
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


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
    yield f"judges    each {check.scope_name}{'' if check.on else '; off unless selected with -c'}"
    yield f"control   {', '.join(check.controls)}"
    for ref in check.refs:
        yield f"ref       {spelled(ref)}"
    if check.required:
        yield f"requires  {' or '.join(check.required)}"
    if check.parameters:
        yield ""
        yield f"Parameters, set with --param {check.id}.NAME=VALUE:"
    for p in check.parameters.values():
        yield f"  {p.name} = {_default(p.default)}"
        yield from (f"      {line}" for line in _wrapped(p.doc, 90))


def _wrapped(paragraph: str, width: int = 96) -> list[str]:
    import textwrap

    return textwrap.wrap(" ".join(paragraph.split()), width)


def _default(value: object) -> str:
    if isinstance(value, tuple) and len(value) > 8:
        return f"[{', '.join(map(str, value[:8]))}, … {len(value) - 8} more]"
    if isinstance(value, tuple) and value and isinstance(value[0], dict):
        return msgspec.json.encode(value).decode()
    return text(value)


def spelled(ref: Ref) -> str:
    return f"{ref.framework}{'-' + ref.version if ref.version else ''}:{ref.id}"
