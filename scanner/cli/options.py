"""The shared options, declared once: a command takes a group of them as one dataclass parameter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from scanner.model import Severity

EXIT_INTERRUPTED = 130  # as shells report SIGINT


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


def option(*names: str, help: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


class CveSeverity(StrEnum):
    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NEGLIGIBLE = "negligible"


@dataclass(frozen=True)
class Judging:
    """Which checks run, with which parameters."""

    check: Annotated[
        list[str], option("-c", "--check", help="Run only this check; repeatable, globs.", panel="Checks")
    ] = field(default_factory=list)
    exclude_check: Annotated[
        list[str], option("-e", "--exclude-check", help="Leave this check out; repeatable, globs.", panel="Checks")
    ] = field(default_factory=list)
    ref: Annotated[
        list[str], option(help="Only checks of a framework: cis-aks-1.8, pss:baseline, nsa.", panel="Checks")
    ] = field(default_factory=list)
    min_severity: Annotated[Severity | None, option(help="Only checks this severe or worse.", panel="Checks")] = None
    profile: Annotated[str | None, option(help="recommended (default), defender, defender-2021.", panel="Checks")] = (
        None
    )
    param: Annotated[
        list[str], option(help="CHECK.NAME=VALUE; lists as a,b,c; repeatable.", panel="Checks", metavar="PARAM")
    ] = field(default_factory=list)
    include_system_namespaces: Annotated[
        bool, option("--include-system-namespaces", help="Judge kube-system and its like too.", panel="Checks")
    ] = False
    config: Annotated[
        Path | None, option(help="Configuration file; kubeposture.yaml here by default.", panel="Checks")
    ] = None
    min_cve_severity: Annotated[
        CveSeverity | None, option(help="Vulnerabilities less grave do not count; low by default.", panel="Images")
    ] = None
    fixable_only: Annotated[
        bool, option("--fixable-only", help="Count only vulnerabilities that have a fix.", panel="Images")
    ] = False
    max_scan_age: Annotated[
        int | None, option(help="Days for which a scan proves that there is nothing; 30.", panel="Images", min=1)
    ] = None
    known_exploited: Annotated[
        Path | None, option(help="CISA's list of known exploited ones, JSON or CSV.", panel="Images")
    ] = None


@dataclass(frozen=True)
class ImageSources:
    """Who tells of vulnerabilities in images, beside the clouds and what runs in the clusters."""

    vulnerabilities: Annotated[
        list[str], option(help="Reports of Trivy or Grype: JSON file or directory; repeatable.", panel="Images")
    ] = field(default_factory=list)
    jfrog_url: Annotated[
        str | None, option(help="JFrog platform with Xray; token in JFROG_ACCESS_TOKEN.", panel="Images")
    ] = None
    registry_auth: Annotated[
        Path | None,
        option(help="Docker config.json: its registries are asked what indexes hold.", panel="Images"),
    ] = None


@dataclass(frozen=True)
class Reporting:
    """What is reported where, and what the exit code says."""

    output: Annotated[
        list[str],
        option("-o", "--output", help="FORMAT[=PATH]: table, json, ndjson, ocsf; repeatable.", panel="Report"),
    ] = field(default_factory=list)
    status: Annotated[
        str | None, option(help="Statuses to list: fail,unknown,error,pass,… or all.", panel="Report")
    ] = None
    fail_on: Annotated[
        Severity | None, option(help="Exit 1 if something of this severity or worse fails.", panel="Report")
    ] = None
    history: Annotated[
        str | None,
        option(help="File that remembers findings, to tell what is new: PATH or off.", panel="Report"),
    ] = None
    deliver: Annotated[
        bool, option("--deliver", help="Tell the sinks of the configuration what changed.", panel="Report")
    ] = False
    fail_on_new: Annotated[
        Severity | None, option(help="Exit 1 if something fails that did not before.", panel="Report")
    ] = None
    allow_incomplete: Annotated[
        bool, option("--allow-incomplete", help="Exit 0 although something could not be read.", panel="Report")
    ] = False
    min_coverage: Annotated[
        str | None, option(help="Share of lists and documents that is enough: 95%.", panel="Report")
    ] = None
    emit_cves: Annotated[
        bool,
        option("--emit-cves", help="With -o ocsf: an event for each image and vulnerability, too.", panel="Report"),
    ] = False
    no_color: Annotated[bool, option("--no-color", help="No colours.", panel="Report")] = False


@dataclass(frozen=True)
class Running:
    """How clusters are read."""

    timeout: Annotated[float, option(help="Seconds for one cluster.", panel="Run", min=1)] = 600
    request_timeout: Annotated[float, option(help="Seconds that a server may be silent.", panel="Run", min=0.1)] = 30
    concurrency: Annotated[
        int | None, option(help="Clusters read side by side; 4, of a cloud 16.", panel="Run", min=1, max=64)
    ] = None


@dataclass(frozen=True)
class Logging:
    """What is said meanwhile, on standard error."""

    quiet: Annotated[bool, option("-q", "--quiet", help="No progress.", panel="Run")] = False
    verbose: Annotated[
        bool, option("-v", "--verbose", help="Show the traceback of an internal error.", panel="Run")
    ] = False
    log_format: Annotated[LogFormat, option(help="Form of what is logged on standard error.", panel="Run")] = (
        LogFormat.TEXT
    )


@dataclass(frozen=True)
class Contexts:
    """Which clusters of a kubeconfig."""

    context: Annotated[
        list[str],
        option(help="Context of the kubeconfig; repeatable, globs. Default: the current one.", panel="Target"),
    ] = field(default_factory=list)
    kubeconfig: Annotated[
        Path | None, option(help="Default: $KUBECONFIG, ~/.kube/config, in-cluster.", panel="Target")
    ] = None


@dataclass(frozen=True)
class Namespaces:
    """What inside a cluster."""

    namespace: Annotated[
        list[str], option("-n", "--namespace", help="Read only this namespace; repeatable.", panel="Target")
    ] = field(default_factory=list)
    exclude_namespace: Annotated[
        list[str], option(help="Leave a namespace out; repeatable, globs.", panel="Target")
    ] = field(default_factory=list)


class Planes(StrEnum):
    BOTH = "both"
    CONTROL = "control"
    DATA = "data"


@dataclass(frozen=True)
class Discovery:
    """Which of the clusters that a cloud lists, and what of them."""

    cluster: Annotated[list[str], option(help="Only clusters of this name; repeatable, globs.", panel="Target")] = (
        field(default_factory=list)
    )
    tag: Annotated[
        list[str],
        option(help="Only clusters with this tag: KEY or KEY=VALUE; repeatable.", panel="Target"),
    ] = field(default_factory=list)
    planes: Annotated[
        Planes, option(help="The cloud's settings (control), what runs inside (data), or both.", panel="Target")
    ] = Planes.BOTH


ARM_ENDPOINT = "KUBEPOSTURE_ARM_ENDPOINT"


class AzureCloud(StrEnum):
    PUBLIC = "AzureCloud"
    US_GOVERNMENT = "AzureUSGovernment"
    CHINA = "AzureChinaCloud"


@dataclass(frozen=True)
class AzureScope:
    """Which part of Azure, and as whom."""

    subscription: Annotated[
        list[str], option(help="Subscription, id or name; repeatable. Default: all that are visible.", panel="Target")
    ] = field(default_factory=list)
    tenant: Annotated[str | None, option(help="Entra tenant to log in to.", panel="Target")] = None
    cloud: Annotated[AzureCloud, option(help="Azure cloud.", panel="Target")] = AzureCloud.PUBLIC
    arm_endpoint: Annotated[
        str | None,
        option(help="Azure Resource Manager elsewhere: https://…", panel="Target", envvar=ARM_ENDPOINT),
    ] = None
    allow_local_account: Annotated[
        bool,
        option("--allow-local-account", help="Read clusters without Entra ID by their local account.", panel="Target"),
    ] = False


@dataclass(frozen=True)
class AwsScope:
    """Which part of AWS, and as whom."""

    aws_profile: Annotated[str | None, option(help="Profile of the AWS configuration.", panel="Target")] = None
    role_arn: Annotated[
        list[str], option(help="Role to assume, one for each account to be read; repeatable.", panel="Target")
    ] = field(default_factory=list)
    organization: Annotated[
        str | None,
        option(help="Name of a role to assume in every active account of the organization.", panel="Target"),
    ] = None
    external_id: Annotated[str | None, option(help="External id for assuming roles.", panel="Target")] = None
    region: Annotated[list[str], option(help="Region; repeatable. Default: all that are enabled.", panel="Target")] = (
        field(default_factory=list)
    )


GCP_ENDPOINTS = "KUBEPOSTURE_GCP_ENDPOINTS"


@dataclass(frozen=True)
class GcpScope:
    """Which part of Google Cloud, and as whom."""

    project: Annotated[
        list[str], option(help="Project id; repeatable. Default: that of the credentials.", panel="Target")
    ] = field(default_factory=list)
    organization: Annotated[
        list[str], option(help="Every project of an organization, by its number; repeatable.", panel="Target")
    ] = field(default_factory=list)
    folder: Annotated[
        list[str], option(help="Every project below a folder, by its number; repeatable.", panel="Target")
    ] = field(default_factory=list)
    impersonate: Annotated[str | None, option(help="Service account to act as.", panel="Target")] = None
    gcp_endpoint: Annotated[
        list[str],
        option(help="Google API elsewhere: container=https://…; repeatable.", panel="Target", envvar=GCP_ENDPOINTS),
    ] = field(default_factory=list)


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
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=f.default if f.default_factory is MISSING else f.default_factory(),
            annotation=hints[f.name],
        )
        for f in fields(group)
    ]
