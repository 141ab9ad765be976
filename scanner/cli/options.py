"""The shared options, declared once: a command takes a group of them as one dataclass parameter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from scanner.model import Severity, Status


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


def option(*names: str, help: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


@dataclass(frozen=True)
class Judging:
    """Which checks run, with which parameters."""

    check: Annotated[list[str], option("-c", "--check", help="Run only this check; repeatable, globs.", panel="Checks")]
    exclude_check: Annotated[
        list[str], option("-e", "--exclude-check", help="Leave this check out; repeatable, globs.", panel="Checks")
    ]
    ref: Annotated[
        list[str], option(help="Only checks of a framework: cis-aks-1.8, pss:baseline, nsa.", panel="Checks")
    ]
    min_severity: Annotated[Severity | None, option(help="Only checks of this severity or worse.", panel="Checks")]
    profile: Annotated[str | None, option(help="recommended (default), defender or defender-2021.", panel="Checks")]
    param: Annotated[
        list[str], option(help="CHECK.NAME=VALUE; lists as a,b,c; repeatable.", panel="Checks", metavar="PARAM")
    ]
    include_system_namespaces: Annotated[
        bool, option("--include-system-namespaces", help="Judge kube-system and its like too.", panel="Checks")
    ]
    config: Annotated[Path | None, option(help="Configuration file; kubeposture.yaml here by default.", panel="Checks")]


@dataclass(frozen=True)
class Reporting:
    """What is reported where, and what the exit code says."""

    output: Annotated[
        list[str],
        option("-o", "--output", help="FORMAT[=PATH]: table, json, ndjson; repeatable.", panel="Report"),
    ]
    status: Annotated[str | None, option(help="Statuses to list: fail,unknown,error,pass,… or all.", panel="Report")]
    fail_on: Annotated[
        Severity | None, option(help="Exit 1 if something of this severity or worse fails.", panel="Report")
    ]
    allow_incomplete: Annotated[
        bool, option("--allow-incomplete", help="Exit 0 although something could not be read.", panel="Report")
    ]
    min_coverage: Annotated[
        str | None, option(help="Share of lists and documents that is enough: 95%.", panel="Report")
    ]
    no_color: Annotated[bool, option("--no-color", help="No colours.", panel="Report")]


@dataclass(frozen=True)
class Running:
    """How the work is done."""

    timeout: Annotated[float, option(help="Seconds for one cluster (600).", panel="Run", min=1)] = 600.0
    request_timeout: Annotated[
        float, option(help="Seconds that a server may be silent (30).", panel="Run", min=0.1)
    ] = 30.0
    concurrency: Annotated[int, option(help="Clusters read side by side (4).", panel="Run", min=1, max=64)] = 4
    quiet: Annotated[bool, option("-q", "--quiet", help="No progress.", panel="Run")] = False
    verbose: Annotated[
        bool, option("-v", "--verbose", help="Log what is done; with internal errors, why.", panel="Run")
    ] = False
    log_format: Annotated[LogFormat, option(help="text or json, on standard error.", panel="Run")] = LogFormat.TEXT


@dataclass(frozen=True)
class Logging:
    """For commands that read no cluster."""

    quiet: Annotated[bool, option("-q", "--quiet", help="No progress.", panel="Run")] = False
    verbose: Annotated[
        bool, option("-v", "--verbose", help="Log what is done; with internal errors, why.", panel="Run")
    ] = False
    log_format: Annotated[LogFormat, option(help="text or json, on standard error.", panel="Run")] = LogFormat.TEXT


@dataclass(frozen=True)
class ClusterScope:
    """Which clusters of a kubeconfig, and what inside them."""

    context: Annotated[
        list[str],
        option(help="Context of the kubeconfig; repeatable, globs. Default: the current one.", panel="Target"),
    ]
    kubeconfig: Annotated[Path | None, option(help="Default: $KUBECONFIG, ~/.kube/config, in-cluster.", panel="Target")]
    namespace: Annotated[
        list[str], option("-n", "--namespace", help="Read only this namespace; repeatable.", panel="Target")
    ]
    exclude_namespace: Annotated[list[str], option(help="Leave a namespace out; repeatable, globs.", panel="Target")]


def takes_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Spread each dataclass parameter of a command into the options that it declares."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}  # type: ignore[misc]
    parameters, spread = [], {}
    for parameter in inspect.signature(command).parameters.values():
        group = groups.get(parameter.name)
        if group is None:
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        of_group = _parameters(group)
        spread[parameter.name] = (group, [p.name for p in of_group])
        parameters += of_group

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        for name, (group, names) in spread.items():
            values[name] = group(**{n: values.pop(n) for n in names})
        return command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _parameters(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f.default, hints[f.name]), annotation=hints[f.name]
        )
        for f in fields(group)
    ]


def _default(default: Any, hint: Any) -> Any:
    """Options without a default of their own are off, empty or unset, by their type."""
    if isinstance(default, str | int | float | bool | StrEnum):
        return default
    kind = hint.__origin__
    if kind is bool:
        return False
    return [] if kind == list[str] else None


def statuses(text: str | None) -> frozenset[Status]:
    """Raises ValueError naming what is no status."""
    from scanner.engine import LISTED

    if text is None:
        return LISTED
    if text == "all":
        return frozenset(Status)
    return frozenset(Status(part.strip()) for part in text.split(","))
