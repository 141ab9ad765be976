"""kubeposture checks: what is checked, and why."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer

import checks
from scanner.check import INVALID_OBJECT, Check, type_name
from scanner.config import ConfigError, nearest, shown
from scanner.model import Severity
from scanner.questions import QUESTIONS

app = typer.Typer(help="The catalogue of checks.", no_args_is_help=True)


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("-o", "--output", help="table or json.", show_default=False)]


def catalogue() -> dict[str, Check]:
    """Every check by id, with the one that is always on."""
    return dict(sorted({**checks.load(), INVALID_OBJECT.id: INVALID_OBJECT}.items()))


@app.command("list")
def list_checks(output: Output = Format.TABLE) -> None:
    """Every check with its severity and title."""
    every = list(catalogue().values())
    if output is Format.JSON:
        _print_json([entry(check) for check in every])
    else:
        typer.echo("\n".join(_lines(every, _width())))


def _width() -> int:
    return min(100, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 100


def _lines(every: Sequence[Check], width: int) -> Iterable[str]:
    """A table of three columns, the last one wrapped. Laid out by hand: rich takes longer than all checks."""
    id_width, severity_width = max(len(check.id) for check in every), max(len(severity) for severity in Severity)
    indent = id_width + severity_width + 4
    for id, severity, title in (("check", "severity", "title"), *map(_row, every)):
        wrapped = textwrap.wrap(title, max(width - indent, 20), break_on_hyphens=False)
        yield f"{id:<{id_width}}  {severity:<{severity_width}}  {wrapped[0]}"
        yield from (" " * indent + line for line in wrapped[1:])


def _row(check: Check) -> tuple[str, str, str]:
    return check.id, check.severity.value, check.title if check.on else f"{check.title} (off)"


@app.command("show")
def show_check(
    id: Annotated[str, typer.Argument(help="Id of the check.", show_default=False)], output: Output = Format.TABLE
) -> None:
    """One check: why it matters, how to fix it, its parameters and references."""
    every = catalogue()
    if id not in every:
        raise ConfigError(f"no check is named {id!r}{nearest(id, every)}")
    if output is Format.JSON:
        _print_json(entry(every[id]))
    else:
        typer.echo("\n".join(page(every[id])))


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
        "question": check.question,
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
    if check.question:
        yield f"question  {QUESTIONS[check.question].title} (kubeposture matrix)"
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
    text = " ".join(paragraph.split())
    return textwrap.wrap(text, 96, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
