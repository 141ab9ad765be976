"""kubeposture matrix: the three clouds' answers to the same questions, side by side, from a report."""

from __future__ import annotations

import csv
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from scanner.config import ConfigError


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def show_matrix(
    report: Annotated[Path, typer.Argument(help="A report in JSON: scan with -o json=FILE.", show_default=False)],
    output: Annotated[Format, typer.Option("-o", "--output", help="table, json or csv.", show_default=False)] = (
        Format.TABLE
    ),
) -> None:
    """Clusters and what checks of several clouds ask, side by side."""
    from scanner.matrix import Matrix
    from scanner.report import matrix as text

    try:
        parts = msgspec.json.decode(report.read_bytes(), type=dict[str, msgspec.Raw])
        found = msgspec.json.decode(parts["matrix"], type=Matrix)
    except OSError as error:
        raise ConfigError(f"{report}: cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        raise ConfigError(f"{report}: is no JSON report of this kubeposture: scan with -o json=FILE") from None
    if output is Format.JSON:
        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    elif output is Format.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("provider", "account", "region", "cluster", *(_harmless(q.id) for q in found.questions)))
        for row in found.clusters:
            answers = (text.answer(row, question) for question in found.questions)
            names = (row.provider, row.account or "", row.region or "", row.cluster)
            writer.writerow(map(_harmless, (*names, *answers)))
    elif not found.clusters or not found.questions:
        typer.echo("no cluster of a cloud in this report: kubeposture scan aks, eks, gke or all shows some")
    else:
        width = min(100, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 100
        typer.echo("\n".join(text.clusters(found, width)))


def _harmless(name: str) -> str:
    """Spreadsheets take a text that starts like this for a formula; "-" alone is an answer."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) and name != "-" else name
