"""kubeposture.yaml and the command line -> settings: which checks run, with which parameters.

Parameters come from the check's default < profile < configuration file < command line. Everything is checked and
compiled here, before anything is read: an unknown name is an error that offers the nearest valid one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import msgspec

from scanner import quantity
from scanner.check import SCOPES, Check, LabelSelector, Limit, Parameter, Pattern, Ports
from scanner.exemptions import Exemption
from scanner.kube import WORKLOADS, printable
from scanner.model import ParameterValue, Severity, text
from scanner.ports import parse_ports
from scanner.profiles import PROFILES, Profile

DEFAULT_LABELS = ("app.kubernetes.io/*", "team", "owner", "environment")


class ConfigError(Exception):
    """Bad usage or configuration: one sentence that says what is wrong and what would be right."""


# ---------------------------------------------------------------------------------------------------------------------
# The file


class ChecksSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    severity: dict[str, Severity] = {}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """kubeposture.yaml, as its JSON Schema describes it."""

    profile: str | None = None
    checks: ChecksSection = msgspec.field(default_factory=ChecksSection)
    parameters: dict[str, dict[str, Any]] = {}
    exemptions: tuple[Exemption, ...] = ()
    cluster_ids: dict[str, str] = {}
    labels: tuple[str, ...] = DEFAULT_LABELS
    outputs: tuple[str, ...] = ()


def load(path: Path) -> Config:
    """Read a configuration file; raises ConfigError naming the file and the place in it."""
    try:
        raw = _yaml(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not valid YAML: {printable(error)}") from None
    try:
        return msgspec.convert(raw or {}, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_explain(str(error))}") from None


def _yaml(data: bytes | str) -> Any:
    """The one document that `data` holds; raises ValueError. Imported on use: most runs read no configuration."""
    import yaml

    try:
        return yaml.load(data, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from None


_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_KEYS = (
    *Config.__struct_fields__,
    *ChecksSection.__struct_fields__,
    *Exemption.__struct_fields__,
    "cluster",
    "namespace",
    "kind",
    "name",
    "container",
)


def _explain(message: str) -> str:
    match = _UNKNOWN.search(message)
    return printable(message) + (nearest(match[1], _KEYS) if match else "")


def nearest(name: str, valid: Iterable[str]) -> str:
    """ "; did you mean x?" or "" """
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


# ---------------------------------------------------------------------------------------------------------------------
# Settings


@dataclass(frozen=True)
class Plan:
    """One check that runs, with its parameters compiled."""

    check: Check
    severity: Severity
    values: Mapping[str, Any]  # compiled, by name
    parameters: tuple[ParameterValue, ...]  # as findings show them
    configured: bool

    @cached_property
    def kwargs(self) -> dict[str, Any]:
        """What the check's function takes."""
        return {name: self.values[name] for name in self.check.passed}

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Plurals of the kinds that this check judges."""
        return SCOPES[self.check.scope]

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """Plurals that are looked up beside the subjects."""
        extra = [kind for name, kinds in self.check.needs_if.items() if self.values.get(name) for kind in kinds]
        return (*self.check.needs, *extra)


@dataclass(frozen=True, slots=True)
class Settings:
    profile: Profile
    plans: tuple[Plan, ...]
    exemptions: tuple[Exemption, ...] = ()
    labels: tuple[str, ...] = DEFAULT_LABELS
    cluster_ids: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def kinds(self) -> frozenset[str]:
        """Every plural that the selected checks need, and no other."""
        wanted = {k for plan in self.plans for k in (*plan.subjects, *plan.needs)}
        if wanted & set(WORKLOADS):
            wanted |= {"nodes"}  # whether a pod runs on Windows
        return frozenset(wanted | {"namespaces"})


@dataclass(frozen=True, slots=True)
class Selection:
    """What the command line says of checks."""

    profile: str | None = None
    checks: Sequence[str] = ()
    exclude: Sequence[str] = ()
    refs: Sequence[str] = ()
    min_severity: Severity | None = None
    parameters: Sequence[str] = ()
    include_system_namespaces: bool = False


def settings(checks: Mapping[str, Check], config: Config, selection: Selection) -> Settings:
    """Raises ConfigError for any name or value that is not valid."""
    profile = _profile(selection.profile or config.profile or "recommended")
    given = _given_parameters(checks, config, selection)
    severities = {_known(checks, id): severity for id, severity in config.checks.severity.items()}
    for pattern in (p for e in config.exemptions for p in e.checks):
        _matching(checks, pattern)
    warnings: list[str] = []
    plans = []
    for id in _selected(checks, profile, config.checks, selection):
        plan = _plan(checks[id], severities.get(id, checks[id].severity), profile, given, selection, warnings)
        if selection.min_severity is None or plan.severity.rank <= selection.min_severity.rank:
            plans.append(plan)
    if not plans:
        raise ConfigError("no check is selected: loosen --check, --exclude-check, --ref or --min-severity")
    return Settings(
        profile, tuple(plans), config.exemptions, config.labels, config.cluster_ids, tuple(dict.fromkeys(warnings))
    )


def _profile(name: str) -> Profile:
    if name not in PROFILES:
        raise ConfigError(f"no profile is named {name!r}; profiles are {', '.join(PROFILES)}{nearest(name, PROFILES)}")
    return PROFILES[name]


def _known(checks: Mapping[str, Check], id: str) -> str:
    if id not in checks:
        raise ConfigError(f"no check is named {id!r}{nearest(id, checks)}")
    return id


def _matching(checks: Mapping[str, Check], pattern: str) -> list[str]:
    found = [id for id in checks if fnmatchcase(id, pattern)]
    if not found and any(c in pattern for c in "*?["):
        raise ConfigError(f"no check matches {pattern!r}: see `kubeposture checks list`")
    return found or [_known(checks, pattern)]


def _selected(checks: Mapping[str, Check], profile: Profile, section: ChecksSection, selection: Selection) -> list[str]:
    on = {id for id, check in checks.items() if check.on} | set(profile.switch_on)
    on |= {id for pattern in section.enable for id in _matching(checks, pattern)}
    on -= {id for pattern in section.disable for id in _matching(checks, pattern)}
    if selection.checks:
        asked = {id for pattern in selection.checks for id in _matching(checks, pattern)}
        on = {id for id in asked if id in on or id in selection.checks}
    if selection.refs:
        on &= {id for ref in selection.refs for id in _referring(checks, ref)}
    on -= {id for pattern in selection.exclude for id in _matching(checks, pattern)}
    return sorted(on)


def _referring(checks: Mapping[str, Check], wanted: str) -> list[str]:
    """Checks with a reference such as cis-aks-1.8, pss:baseline, mitre or cis-k8s-1.12:5.2.2."""
    spelled = {
        id: [f"{r.framework}{'-' + r.version if r.version else ''}:{r.id}" for r in c.refs] for id, c in checks.items()
    }
    found = [
        id
        for id, refs in spelled.items()
        if any(ref == wanted or ref.startswith((wanted + ":", wanted + "-")) for ref in refs)
    ]
    if not found:
        known = {ref.partition(":")[0] for refs in spelled.values() for ref in refs}
        raise ConfigError(f"no check refers to {wanted!r}; frameworks are {', '.join(sorted(known))}")
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Parameters

_Given = dict[str, dict[str, tuple[Any, str]]]  # check -> parameter -> (raw value, origin)


def _given_parameters(checks: Mapping[str, Check], config: Config, selection: Selection) -> _Given:
    given: _Given = {}
    for id, values in config.parameters.items():
        for name, value in values.items():
            _parameter(checks, id, name)
            given.setdefault(id, {})[name] = (value, "config")
    for item in selection.parameters:
        target, equals, value = item.partition("=")
        id, dot, name = target.rpartition(".")
        if not equals or not dot:
            raise ConfigError(f"--param {item!r} is not CHECK.NAME=VALUE")
        parameter = _parameter(checks, id, name)
        given.setdefault(id, {})[name] = (_from_text(parameter, value), "command line")
    return given


def _parameter(checks: Mapping[str, Check], id: str, name: str) -> Parameter:
    parameters = checks[_known(checks, id)].parameters
    if name not in parameters:
        offer = nearest(name, parameters) or f"; it has {', '.join(parameters)}"
        raise ConfigError(f"check {id} has no parameter {name!r}{offer}")
    return parameters[name]


def _from_text(parameter: Parameter, value: str) -> Any:
    """A command-line value; lists may be written a,b,c and anything else as YAML."""
    if _is_list(parameter.type) and not value.lstrip().startswith("["):
        return [item.strip() for item in value.split(",") if item.strip()]
    if parameter.type is str or Pattern in _options(parameter.type) or parameter.type is Limit:
        return value
    try:
        return _yaml(value)
    except ValueError as error:
        raise ConfigError(f"--param {parameter.name}: {printable(error)}") from None


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) or (kind,)


def _is_list(kind: Any) -> bool:
    return kind == tuple[str, ...] or Ports in _options(kind)


def _plan(
    check: Check, severity: Severity, profile: Profile, given: _Given, selection: Selection, warnings: list[str]
) -> Plan:
    profiled = profile.values(check)
    if selection.include_system_namespaces and "excluded_namespaces" in check.parameters:
        profiled["excluded_namespaces"] = []
    values, shown = {}, []
    for name, parameter in check.parameters.items():
        raw, origin = given.get(check.id, {}).get(name) or (
            (profiled[name], "profile") if name in profiled else (parameter.default, "default")
        )
        values[name] = _compile(check.id, parameter, raw)
        if origin != "default" or name in check.passed:
            shown.append(ParameterValue(name, _shown(raw), origin))
        if name == "allowed_images_regex" and raw and not (str(raw).startswith("^") and str(raw).endswith("$")):
            warnings.append(
                f"{check.id}.{name} is not anchored with ^ and $: it also accepts images that contain a match"
            )
    configured = not check.required or any(values[name] not in (None, ()) for name in check.required)
    return Plan(check, severity, values, tuple(shown), configured)


def _shown(raw: Any) -> str:
    if isinstance(raw, list | tuple | dict) and any(isinstance(v, dict) for v in raw):
        return msgspec.json.encode(raw).decode()
    return msgspec.json.encode(raw).decode() if isinstance(raw, dict) else text(raw)


def _compile(id: str, parameter: Parameter, raw: Any) -> Any:
    try:
        return _compiled(parameter.type, raw)
    except (msgspec.ValidationError, ValueError) as error:
        message = f"check {id}, parameter {parameter.name}: {printable(error)} ({parameter.doc})"
        raise ConfigError(message) from None


def _compiled(kind: Any, raw: Any) -> Any:
    options = _options(kind)
    if Pattern in options:
        return _pattern(raw)
    if Ports in options:
        return None if raw is None else _ports(raw)
    if kind is Limit:
        return Limit(str(raw), quantity.parse(raw))
    if kind is LabelSelector:
        return _selector(msgspec.convert(raw, LabelSelector))
    return msgspec.convert(raw, kind)


def _pattern(raw: Any) -> Any:
    """An empty pattern would accept everything, so it counts as not configured."""
    if raw is None or raw == "":
        return None
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(msgspec.convert(raw, str), options)
    except re2.error as error:
        raise ValueError(f"is no RE2 pattern: {error}") from None


def _ports(raw: Any) -> Ports:
    items = msgspec.convert(raw, tuple[str | int, ...])
    return Ports(items, parse_ports(items))


def _selector(selector: LabelSelector) -> LabelSelector:
    for expression in selector.match_expressions:
        if expression.operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            raise ValueError(f"operator {expression.operator!r} is none of In, NotIn, Exists, DoesNotExist")
    return selector


def today() -> date:
    return date.today()
