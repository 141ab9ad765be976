"""@check: a function's signature says what it looks at and which parameters it takes, its docstring is its page."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, get_args, get_origin, get_type_hints

import msgspec

from scanner import resources
from scanner.images import RegistryImage, RunningContainer
from scanner.kube import WORKLOADS, Container, Ingress, Resource, Service, Workload
from scanner.model import Ref, Severity, Verdict, not_applicable
from scanner.ports import PortRanges
from scanner.questions import QUESTIONS

IMAGES = "images"  # names in gaps what sources say of vulnerabilities in images

# scope -> the plural names of the kinds whose objects are its subjects
SCOPES: dict[type, tuple[str, ...]] = {
    Container: WORKLOADS,
    Workload: WORKLOADS,
    Service: ("services",),
    Ingress: ("ingresses",),
    Resource: (*WORKLOADS, "services", "serviceaccounts", "configmaps"),
    RunningContainer: ("pods", IMAGES),
    RegistryImage: (IMAGES,),
    **resources.SCOPES,
}

# Microsoft's security controls that several checks belong to.
ACCESS = ("Manage access and permissions",)
NETWORK = ("Restrict unauthorized network access",)

BOTH = ("images", "containers")  # what most checks let their users leave out

# What Microsoft leaves out on every cluster: namespaces of the platform and of Defender's own agents.
AZURE_SYSTEM = ("kube-system", "gatekeeper-system", "azure-arc", "azure-extensions-usage-system")
AZURE_SYSTEM_WITH_DEFENDER = (*AZURE_SYSTEM, "azuredefender", "mdc")

# Namespaces that the three providers manage themselves. By exact name: a prefix would be a place to hide in.
PROVIDER_MANAGED = (
    "kube-public",
    "kube-node-lease",
    "calico-system",
    "tigera-operator",
    "aks-istio-system",
    "aks-istio-ingress",
    "aks-istio-egress",
    "app-routing-system",
    "dataprotection-microsoft",
    "amazon-cloudwatch",
    "amazon-guardduty",
    "gke-system",
    "gke-managed-checkpointing",
    "gke-managed-cim",
    "gke-managed-dpv2-observability",
    "gke-managed-filestorecsi",
    "gke-managed-parallelstorecsi",
    "gke-managed-system",
    "gke-managed-volumepopulator",
    "gmp-system",
    "gmp-public",
    "gke-gmp-system",
    "config-management-system",
    "config-management-monitoring",
    "resource-group-system",
    "asm-system",
    "cnrm-system",
)


class Pattern(Protocol):
    """A user's regular expression, compiled by RE2."""

    pattern: str

    def search(self, text: str) -> object | None: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """A list of allowed ports: `items` as written, `ranges` as understood."""

    items: tuple[str | int, ...]
    ranges: PortRanges


def matches(text: str, entry: str) -> bool:
    """Exact, or a prefix where the entry ends in `*`: Azure's matching of images."""
    return text.startswith(entry[:-1]) if entry.endswith("*") else text == entry


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inclusive; max -1 is without bound."""

    min: int
    max: int


class AllowedHostPath(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path_prefix: Annotated[str, msgspec.Meta(pattern=r"^(/|[A-Za-z]:)")]  # absolute: "" would allow every path
    read_only: bool = False


class LabelExpression(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelExpression, ...] = ()


@dataclass(frozen=True, slots=True)
class Limit:
    """A maximum quantity: as written, and in nano-units as `quantity.parse` gives it."""

    text: str
    nanos: int


@dataclass(frozen=True, slots=True)
class Parameter:
    """`type` is the annotated type, `doc` its help; `default` is the uncompiled value, as a configuration writes it."""

    name: str
    type: Any
    default: Any
    doc: str


_AZURE_RULES = Parameter("azure_rules", bool, False, "judge exactly as Azure Policy does, quirks included")


def _common(excluded_namespaces: Sequence[str]) -> dict[str, Parameter]:
    common = (
        Parameter("excluded_namespaces", tuple[str, ...], tuple(excluded_namespaces), "namespaces left out"),
        Parameter("namespaces", tuple[str, ...], (), "judge only these namespaces; empty: all"),
        Parameter("label_selector", LabelSelector, {}, "judge only objects whose labels match"),
        Parameter("excluded_images", tuple[str, ...], (), "images left out: exact, or a prefix ending in *"),
        Parameter("excluded_containers", tuple[str, ...], (), "container names left out"),
        _AZURE_RULES,
    )
    return {p.name: p for p in common}


def _common_in_clouds() -> dict[str, Parameter]:
    return {_AZURE_RULES.name: _AZURE_RULES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check: what the catalogue shows, and the function that judges one subject."""

    id: str
    severity: Severity
    title: str
    why: str
    fix: str
    controls: tuple[str, ...]
    refs: tuple[Ref, ...]
    scope: type
    parameters: dict[str, Parameter]
    run: Callable[..., Verdict]
    passed: tuple[str, ...]  # names of the parameters that the function itself takes
    required: tuple[str, ...] = ()  # at least one of these must be configured
    needs: tuple[str, ...] = ()  # kinds looked up beside the subjects
    needs_if: dict[str, tuple[str, ...]] = field(default_factory=dict)  # parameter -> kinds that it makes necessary
    system_namespaces: tuple[str, ...] = ()  # what Microsoft leaves out; ours leaves out the providers' own too
    linux_only: bool = False
    ephemeral: bool = True
    on: bool = True
    question: str | None = None  # of scanner.questions, which checks of several clouds answer
    of: str = ""  # of a check of images: the cloud of the clusters, or the kind of the registries, that it is about
    always: bool = False  # reported whatever is selected: nothing switches it off or gives it another weight

    @property
    def category(self) -> str:
        if self.scope in (RunningContainer, RegistryImage):
            return "vulnerability"
        return "control_plane" if self.provider else "data_plane"

    @property
    def provider(self) -> str | None:
        """The cloud whose resources it judges; None for what runs in clusters, wherever they are."""
        resource = resources.resource_of(self.scope)
        return resource.provider if resource else None

    @property
    def assessment_keys(self) -> tuple[str, ...]:
        return tuple(r.id for r in self.refs if r.framework == "mdc")

    @property
    def scope_name(self) -> str:
        name: str = getattr(self.scope, "scope_name", "") or self.scope.__name__.lower()
        names = {"resource": "object", "runningcontainer": "running container", "registryimage": "image"}
        return names.get(name, name)


INVALID_OBJECT = Check(
    id="k8s-invalid-object",
    severity=Severity.MEDIUM,
    title="Objects should be readable",
    why="An object that cannot be understood cannot be judged: whatever it does wrong stays unseen.",
    fix="Correct the field that the message names; `kubectl apply --dry-run=server` shows what the API server says.",
    controls=("Remediate security configurations",),
    refs=(),
    scope=Resource,
    parameters={},
    run=lambda resource: not_applicable("always_on"),
    passed=(),
    always=True,
)


_REF = re.compile(r"([a-z0-9-]+?)(?:-(\d+(?:\.\d+)*))?:(.+)")


def parse_ref(text: str) -> Ref:
    """`cis-aks-1.8:4.2.1` -> framework cis-aks, version 1.8, id 4.2.1; the version is optional."""
    match = _REF.fullmatch(text)
    if not match:
        raise ValueError(f"reference {text!r} is not framework[-version]:id")
    return Ref(match[1], match[2], match[3])


def check(
    id: str,
    severity: Severity,
    *,
    fix: str,
    controls: tuple[str, ...],
    refs: tuple[str, ...],
    exclude: tuple[str, ...] = (),
    excluded_namespaces: Sequence[str] = (),
    required: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
    needs_if: dict[str, tuple[str, ...]] | None = None,
    linux_only: bool = False,
    ephemeral: bool = True,
    on: bool = True,
    question: str | None = None,
    of: str = "",
) -> Callable[[Callable[..., Verdict]], Check]:
    """Declare a check.

    The function's first parameter is its scope, keyword-only Annotated parameters with defaults are its own
    parameters. `exclude` names what may be left out beside namespaces and labels: images, containers. Raises TypeError
    on a declaration that the catalogue could not show.
    """

    def declare(function: Callable[..., Verdict]) -> Check:
        if question is not None and question not in QUESTIONS:
            raise TypeError(f"{id}: question {question!r} is none of {', '.join(QUESTIONS)}")
        title, _, why = inspect.cleandoc(function.__doc__ or "").partition("\n")
        if not title.strip() or not why.strip() or not fix:
            raise TypeError(f"{id}: needs a docstring of title, empty line and reason, and a fix")
        hints = get_type_hints(function, include_extras=True)
        subject, *rest = inspect.signature(function).parameters.values()
        scope = hints[subject.name]
        if scope not in SCOPES:
            raise TypeError(f"{id}: the first parameter must be one of {[s.__name__ for s in SCOPES]}")
        own = {p.name: _parameter(id, p, hints[p.name]) for p in rest}
        namespaces = (*excluded_namespaces, *PROVIDER_MANAGED) if excluded_namespaces else ()
        common = _common_in_clouds() if scope in resources.SCOPES or scope is RegistryImage else _common(namespaces)
        for name in ("images", "containers"):
            if name not in exclude:
                common.pop(f"excluded_{name}", None)
        if not linux_only and "azure_rules" not in own:
            del common["azure_rules"]
        return Check(
            id=id,
            severity=severity,
            title=title.strip(),
            why=why.strip(),
            fix=fix,
            controls=controls,
            refs=tuple(parse_ref(r) for r in refs),
            scope=scope,
            parameters={**common, **own},
            run=function,
            passed=tuple(own),
            required=required,
            needs=needs,
            needs_if=needs_if or {},
            system_namespaces=tuple(excluded_namespaces),
            linux_only=linux_only,
            ephemeral=ephemeral,
            on=on,
            question=question,
            of=of,
        )

    return declare


def _parameter(check_id: str, parameter: inspect.Parameter, hint: Any) -> Parameter:
    keyword = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty
    if not keyword or get_origin(hint) is not Annotated:
        raise TypeError(f"{check_id}: {parameter.name} must be keyword-only, Annotated[type, 'help'], with a default")
    kind, doc = get_args(hint)
    return Parameter(parameter.name, kind, parameter.default, doc)


def type_name(kind: Any) -> str:
    """A parameter's type in a few words, with the values that it may have: list of str, pass or require_tls."""
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(inner)
    if get_origin(kind) is tuple:
        return f"list of {type_name(inner[0])}"
    return type_name(inner[0]) if inner else str(kind.__name__)  # of `X | None` only X can be written
