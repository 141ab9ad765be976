"""kubeposture.yaml and the command line -> settings: which checks run, with which parameters.

Parameters come from the check's default < profile < configuration file < command line. Everything is checked and
compiled here, before anything is read: an unknown name is an error that offers the nearest valid one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from scanner import quantity
from scanner.azure import ContainerRegistry
from scanner.check import IMAGES, SCOPES, Check, Limit, Parameter, Pattern, Ports, type_name
from scanner.cloud import JOINED
from scanner.exemptions import Exemption, Resources
from scanner.images import RegistryImage, RunningContainer
from scanner.kube import WORKLOADS, printable
from scanner.model import ParameterValue, Severity, text
from scanner.ports import parse_ports
from scanner.profiles import PROFILES, Profile
from scanner.sinks.settings import NamedSink, ObjectsSink, SecurityHubSink, SentinelSink, SplunkSink, WebhookSink

DEFAULT_LABELS = ("app.kubernetes.io/*", "team", "owner", "environment")


class ConfigError(Exception):
    """Bad usage or configuration: one sentence that says what is wrong and what would be right."""


# ---------------------------------------------------------------------------------------------------------------------
# The file


class ChecksSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    severity: dict[str, Severity] = {}


class _Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that `scan all` reads; the keys are those of the command's options."""


class AksTarget(_Target, frozen=True):
    subscriptions: tuple[str, ...] = ()
    tenant: str | None = None
    cloud: Literal["AzureCloud", "AzureUSGovernment", "AzureChinaCloud"] = "AzureCloud"
    arm_endpoint: str | None = None
    allow_local_account: bool = False
    clusters: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    planes: Literal["both", "control", "data"] = "both"
    namespaces: tuple[str, ...] = ()
    exclude_namespaces: tuple[str, ...] = ()


class EksTarget(_Target, frozen=True):
    aws_profile: str | None = None
    role_arns: tuple[str, ...] = ()
    organization: str | None = None
    external_id: str | None = None
    regions: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    planes: Literal["both", "control", "data"] = "both"
    namespaces: tuple[str, ...] = ()
    exclude_namespaces: tuple[str, ...] = ()


class GkeTarget(_Target, frozen=True):
    projects: tuple[str, ...] = ()
    organizations: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    impersonate: str | None = None
    gcp_endpoints: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    planes: Literal["both", "control", "data"] = "both"
    namespaces: tuple[str, ...] = ()
    exclude_namespaces: tuple[str, ...] = ()


class KubeconfigTarget(_Target, frozen=True):
    contexts: tuple[str, ...] = ()
    kubeconfig: str | None = None
    namespaces: tuple[str, ...] = ()
    exclude_namespaces: tuple[str, ...] = ()


class ManifestsTarget(_Target, frozen=True):
    paths: tuple[str, ...]
    namespace: str | None = None


class BundlesTarget(_Target, frozen=True):
    paths: tuple[str, ...]


class VulnerabilitiesTarget(_Target, frozen=True):
    paths: tuple[str, ...]


class JfrogTarget(_Target, frozen=True):
    url: str


class Target(_Target, frozen=True):
    """Exactly one of its keys."""

    aks: AksTarget | None = None
    eks: EksTarget | None = None
    gke: GkeTarget | None = None
    kubeconfig: KubeconfigTarget | None = None
    manifests: ManifestsTarget | None = None
    bundles: BundlesTarget | None = None
    vulnerabilities: VulnerabilitiesTarget | None = None
    jfrog: JfrogTarget | None = None

    def __post_init__(self) -> None:
        if sum(getattr(self, name) is not None for name in self.__struct_fields__) != 1:
            raise ValueError(f"a target has exactly one of the keys {', '.join(self.__struct_fields__)}")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """kubeposture.yaml, as its JSON Schema describes it."""

    profile: str | None = None
    targets: tuple[Target, ...] = ()
    checks: ChecksSection = msgspec.field(default_factory=ChecksSection)
    parameters: dict[str, dict[str, Any]] = {}
    exemptions: tuple[Exemption, ...] = ()
    cluster_ids: dict[str, str] = {}
    labels: tuple[str, ...] = DEFAULT_LABELS
    outputs: tuple[str, ...] = ()
    sinks: tuple[NamedSink, ...] = ()

    def __post_init__(self) -> None:
        labels = [sink.label for sink in self.sinks]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two sinks are called {label}: give each a name")


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
    from scanner import safe_yaml

    return safe_yaml.load(data, strict=True)


_TARGETS = (
    *(AksTarget, EksTarget, GkeTarget, KubeconfigTarget, ManifestsTarget),
    *(BundlesTarget, VulnerabilitiesTarget, JfrogTarget),
)
_SINKS = (SplunkSink, SentinelSink, SecurityHubSink, ObjectsSink, WebhookSink)
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_KEYS = (
    *Config.__struct_fields__,
    *(name for target in (Target, *_TARGETS, NamedSink, *_SINKS) for name in target.__struct_fields__),
    *ChecksSection.__struct_fields__,
    *Exemption.__struct_fields__,
    *Resources.__struct_fields__,
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
    beside: frozenset[str] = frozenset()  # kinds that checks of other clouds need
    known_exploited: frozenset[str] = frozenset()  # ids of vulnerabilities

    @property
    def checks(self) -> Iterable[Check]:
        return (plan.check for plan in self.plans)

    def about(self, *, cloud: str | None = None, outside: bool = True, inside: bool = True) -> bool:
        """Whether any check is selected that `only` would keep."""
        return any(_about(plan.check, cloud, outside, inside) for plan in self.plans)

    def only(self, *, cloud: str | None = None, outside: bool = True, inside: bool = True) -> Settings:
        """With the checks of what runs `inside` clusters, and of one cloud's resources `outside`. Raises ConfigError if
        none of those is selected."""
        plans = tuple(plan for plan in self.plans if _about(plan.check, cloud, outside, inside))
        if not plans:
            raise ConfigError("no selected check is about this target: loosen --check, --ref, --planes and the like")
        return replace(self, plans=plans)

    def asked_of_azure(self) -> frozenset[str]:
        """What Microsoft's checks of other clouds' clusters have to know of Azure."""
        return frozenset(kind for plan in self.plans for name in plan.needs for kind in JOINED.get(name, ()))

    def kinds(self) -> frozenset[str]:
        """Every plural that the selected checks need inside a cluster, and no other."""
        wanted = {k for plan in self.plans if not plan.check.provider for k in (*plan.subjects, *plan.needs)} - {IMAGES}
        if any(plan.check.scope is RunningContainer for plan in self.plans):
            wanted |= {"replicasets", "jobs", "replicationcontrollers"}  # whose owners a finding is of
        if wanted & set(WORKLOADS):
            wanted |= {"nodes"}  # on which platform a pod runs
        return frozenset(wanted | {"namespaces"}) if wanted else frozenset()

    def cloud_kinds(self, cloud: str = "") -> frozenset[str]:
        """The same of what a cloud is asked for, "" for any."""
        own = {k for plan in self.plans if plan.check.provider for k in (*plan.subjects, *plan.needs)}
        if cloud == "azure" and any(p.check.scope is RegistryImage and p.check.of == "azure" for p in self.plans):
            own.add(ContainerRegistry.kind)  # Azure does not list images: who is silent is told by registry
        return frozenset(own - JOINED.keys() | self.beside)

    @property
    def needs_scans(self) -> bool:
        """Whether a check rests on what sources say of vulnerabilities in images."""
        return any(plan.check.category == "vulnerability" for plan in self.plans)

    @property
    def needs_agents(self) -> bool:
        """Whether a check of the control plane looks at clouds' own agents inside clusters."""
        return any({"agents", "arcConfig"} & set(plan.needs) for plan in self.plans)


def _about(check: Check, cloud: str | None, outside: bool, inside: bool) -> bool:
    if check.scope is RegistryImage:
        return True  # any source may tell of any registry
    if check.scope is RunningContainer:
        return inside and cloud in (None, check.of)
    return outside and check.provider == cloud if check.provider else inside


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
    of_images: Mapping[str, Any] = field(default_factory=dict)  # parameters of every check of images


def settings(checks: Mapping[str, Check], config: Config, selection: Selection) -> Settings:
    """Raises ConfigError for any name or value that is not valid."""
    profile = _profile(selection.profile or config.profile or "recommended")
    given = _given_parameters(checks, config, selection)
    severities = {id: severity for name, severity in config.checks.severity.items() for id in _choosing(checks, name)}
    for pattern in (p for e in config.exemptions for p in e.checks):
        _matching(checks, pattern)
    chosen = _selected(checks, profile, config.checks, selection)
    plans = [_plan(checks[id], severities.get(id, checks[id].severity), profile, given.get(id, {})) for id in chosen]
    if selection.min_severity:
        plans = [plan for plan in plans if plan.severity.rank <= selection.min_severity.rank]
    if not plans:
        raise ConfigError("no check is selected: loosen --check, --exclude-check, --ref or --min-severity")
    return Settings(profile, tuple(plans), config.exemptions, config.labels, config.cluster_ids, _unanchored(plans))


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


def _choosing(checks: Mapping[str, Check], pattern: str) -> list[str]:
    """The same, of those that somebody may select, leave out or weigh otherwise."""
    found = [id for id in _matching(checks, pattern) if not checks[id].always]
    if not found:
        raise ConfigError(f"check {pattern} is always on: only exemptions apply to it")
    return found


def _selected(checks: Mapping[str, Check], profile: Profile, section: ChecksSection, selection: Selection) -> list[str]:
    on = {id for id, check in checks.items() if check.on and not check.always} | set(profile.switch_on)
    on |= {id for pattern in section.enable for id in _choosing(checks, pattern)}
    on -= {id for pattern in section.disable for id in _choosing(checks, pattern)}
    if selection.checks:
        asked = {id for pattern in selection.checks for id in _choosing(checks, pattern)}
        on = {id for id in asked if id in on or id in selection.checks}
    if selection.refs:
        on &= {id for ref in selection.refs for id in _referring(checks, ref)}
    on -= {id for pattern in selection.exclude for id in _choosing(checks, pattern)}
    return sorted(on)


def _referring(checks: Mapping[str, Check], wanted: str) -> list[str]:
    """Checks with a reference such as cis-aks-1.8, pss:baseline, mitre or cis-k8s-1.12:5.2.2."""
    spelled = {id: [str(ref) for ref in check.refs] for id, check in checks.items()}
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

_Given = dict[str, tuple[Any, str]]  # parameter -> (raw value, origin)


def _given_parameters(checks: Mapping[str, Check], config: Config, selection: Selection) -> dict[str, _Given]:
    """What configuration file and command line say, by check; of two the later counts."""
    given: dict[str, _Given] = {}
    for id, values in config.parameters.items():
        for name, value in values.items():
            _parameter(checks, id, name)
            given.setdefault(id, {})[name] = (value, "config")
    if selection.include_system_namespaces:
        for id in (id for id, check in checks.items() if "excluded_namespaces" in check.parameters):
            given.setdefault(id, {})["excluded_namespaces"] = ([], "command line")
    for id in (id for id, check in checks.items() if check.category == "vulnerability"):
        for name, value in selection.of_images.items():
            given.setdefault(id, {})[name] = (value, "command line")
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
        offer = nearest(name, parameters) or f"; it has {', '.join(parameters) or 'none'}"
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
    """Whether it is a list of words: of names, choices or ports."""
    words = get_origin(kind) is tuple and (get_args(kind)[0] is str or get_origin(get_args(kind)[0]) is Literal)
    return words or Ports in _options(kind)


def _plan(check: Check, severity: Severity, profile: Profile, given: _Given) -> Plan:
    raw: _Given = {name: (parameter.default, "default") for name, parameter in check.parameters.items()}
    raw |= {name: (value, "profile") for name, value in profile.values(check).items()}
    raw |= given
    values = {name: _compile(check.id, check.parameters[name], value) for name, (value, _) in raw.items()}
    decided = tuple(
        ParameterValue(name, shown(value), origin)
        for name, (value, origin) in raw.items()
        if origin != "default" or name in check.passed
    )
    configured = not check.required or any(values[name] not in (None, ()) for name in check.required)
    return Plan(check, severity, values, decided, configured)


def shown(raw: Any) -> str:
    """A parameter's uncompiled value on one line: mappings as JSON, all else as a manifest spells it."""
    items = raw if isinstance(raw, list | tuple) else (raw,)
    mappings = any(isinstance(item, dict | msgspec.Struct) for item in items)
    return msgspec.json.encode(raw).decode() if mappings else text(raw)


def _unanchored(plans: Iterable[Plan]) -> tuple[str, ...]:
    """A warning for each pattern that accepts more than its author may think."""
    return tuple(
        f"{plan.check.id}.{name} is not anchored with ^ and $: it also accepts what only contains a match"
        for plan in plans
        for name, parameter in plan.check.parameters.items()
        if Pattern in _options(parameter.type) and not _anchored(plan.values[name])
    )


def _anchored(pattern: Pattern | None) -> bool:
    return pattern is None or (pattern.pattern.startswith("^") and pattern.pattern.endswith("$"))


def _compile(id: str, parameter: Parameter, raw: Any) -> Any:
    try:
        return _compiled(parameter.type, raw)
    except (msgspec.ValidationError, ValueError) as error:
        wanted = f"wanted {type_name(parameter.type)} ({parameter.doc})"
        message = f"check {id}, parameter {parameter.name}: {printable(error)}; {wanted}"
        raise ConfigError(message) from None


def _compiled(kind: Any, raw: Any) -> Any:
    options = _options(kind)
    if Pattern in options:
        return _pattern(raw)
    if Ports in options:
        return None if raw is None else _ports(raw)
    if kind is Limit:
        return Limit(str(raw), quantity.parse(raw))
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
