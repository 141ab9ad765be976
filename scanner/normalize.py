"""Kubernetes objects -> judged views with effective values.

The only place that knows where each kind keeps its pod spec, which containers a pod has, and which defaults the API
server would apply.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, cast

import msgspec
from msgspec import Raw, UnsetType

from scanner import kube
from scanner.kube import printable
from scanner.model import Gap

T = TypeVar("T")

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - where admission mounts the API token
APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
MIRROR = "kubernetes.io/config.mirror"
OS_LABEL = "kubernetes.io/os"
_OS_SELECTORS = (OS_LABEL, "beta.kubernetes.io/os")
_TOKEN_SECRET = re.compile(r"-token-[a-z0-9]{5}$")
_LISTS = (
    ("init_containers", "initContainers", "init"),
    ("containers", "containers", "regular"),
    ("ephemeral_containers", "ephemeralContainers", "ephemeral"),
)

# Labels that controllers make up for each pod, revision or run: they say nothing about the workload.
GENERATED_LABELS = frozenset(
    {
        "pod-template-hash",
        "rollouts-pod-template-hash",
        "controller-revision-hash",
        "pod-template-generation",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
        "controller-uid",
        "job-name",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-name",
        "batch.kubernetes.io/job-completion-index",
    }
)


class NotUnderstood(Exception):
    """A value from outside that is not what Kubernetes defines; the text says where and why."""


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def decode(data: bytes | Raw, kind: type[T]) -> T:
    """Strictly decoded JSON; raises NotUnderstood."""
    try:
        value: T = _decoder(cast("Any", kind)).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotUnderstood(printable(error)) from None
    except RecursionError:
        raise NotUnderstood("nested too deeply") from None
    return value


def texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    """Labels or annotations with every value as text, which is what the API server would insist on."""
    return {k: v if isinstance(v, str) else str(v) for k, v in (values or {}).items()}


@dataclass(slots=True)
class Lookups:
    """What other objects say about a pod: read before workloads are normalized, shared by a whole cluster or input.

    `gaps` is by plural and namespace, "*" for the whole cluster, None for a namespace that was read all the same.
    """

    service_accounts: dict[tuple[str, str], bool | None] = field(default_factory=dict)
    bound_accounts: set[tuple[str, str]] = field(default_factory=set)
    default_limits: dict[str, tuple[kube.Quantity, kube.Quantity]] = field(default_factory=dict)
    windows_nodes: set[str] = field(default_factory=set)
    gaps: dict[tuple[str, str], Gap | None] = field(default_factory=dict)
    in_cluster: bool = False

    def gap(self, plural: str, namespace: str) -> Gap | None:
        return self.gaps.get((plural, namespace), self.gaps.get((plural, "*")))

    def add_service_account(self, account: kube.WireServiceAccount, namespace: str) -> None:
        if account.metadata and account.metadata.name:
            key = namespace, account.metadata.name
            if self.service_accounts.get(key, False) is False:  # of two definitions the one that mounts counts
                self.service_accounts[key] = account.automount_service_account_token

    def add_limit_range(self, limits: kube.WireLimitRange, namespace: str) -> None:
        """The first default of each resource counts, as several LimitRanges are applied one after the other."""
        cpu, memory = self.default_limits.get(namespace, (None, None))
        for item in (limits.spec.limits if limits.spec else None) or ():
            if item.type == "Container" and item.default:
                cpu = item.default.get("cpu") if cpu is None else cpu
                memory = item.default.get("memory") if memory is None else memory
        self.default_limits[namespace] = (cpu, memory)

    def add_binding(self, binding: kube.WireBinding, namespace: str) -> None:
        for subject in binding.subjects or ():
            if subject.kind == "ServiceAccount" and subject.name:
                self.bound_accounts.add((subject.namespace or namespace, subject.name))


@dataclass(frozen=True, slots=True)
class PodSource:
    """One pod or pod template, still on the wire: the spec's bytes, its metadata, and its place inside the object."""

    spec: bytes | Raw
    path: str
    namespace: str
    labels: Mapping[str, Any] | None = None
    annotations: Mapping[str, Any] | None = None
    live: bool = False


@dataclass(frozen=True, slots=True)
class InvalidContainer:
    name: str
    message: str


def workload(pod: PodSource, lookups: Lookups) -> tuple[kube.Workload, tuple[InvalidContainer, ...]]:
    """The judged view of a pod, and the containers that could not be understood.

    Raises NotUnderstood where the pod itself cannot be: wrong types outside its containers, or no container at all.
    """
    spec = decode(pod.spec, kube.WirePodSpec)
    if not spec.containers:
        raise NotUnderstood(f"{pod.path} has no containers")
    context = _context(spec, pod, lookups)
    annotations = pod.annotations or {}
    containers: list[kube.Container] = []
    wires: list[tuple[kube.WireContainer, kube.Container]] = []
    invalid: list[InvalidContainer] = []
    for raw, kind, path in _raw_containers(spec, pod.path):
        try:
            wire = decode(raw, kube.WireContainer)
            if not wire.name:
                raise NotUnderstood("the container has no name")
        except NotUnderstood as error:
            invalid.append(InvalidContainer(_name_of(raw), f"{path}: {error}"))
            continue
        view = _container(wire, kind, path, context, spec.security_context, annotations)
        containers.append(view)
        wires.append((wire, view))
    return _workload(pod, spec, context, wires, lookups, bool(invalid)), tuple(invalid)


def _raw_containers(spec: kube.WirePodSpec, path: str) -> Iterator[tuple[Raw, str, str]]:
    for attribute, name, kind in _LISTS:
        for i, raw in enumerate(getattr(spec, attribute) or ()):
            yield raw, kind, f"{path}.{name}[{i}]"


class _Named(kube.Wire, frozen=True):
    name: str | None = None


def _name_of(raw: Raw) -> str:
    try:
        return decode(raw, _Named).name or ""
    except NotUnderstood:
        return ""


def _context(spec: kube.WirePodSpec, pod: PodSource, lookups: Lookups) -> kube.PodContext:
    security = spec.security_context or kube.PodSecurityContext()
    limits = (spec.resources.limits if spec.resources else None) or {}
    selector = spec.node_selector or {}
    by_selector = any(selector.get(key) == "windows" for key in _OS_SELECTORS)
    by_name = spec.os is not None and spec.os.name == "windows"
    # A LimitRange acts at admission: what runs already shows it, what is only a template does not yet.
    cpu, memory = (None, None) if pod.live else lookups.default_limits.get(pod.namespace, (None, None))
    return kube.PodContext(
        path=pod.path,
        in_cluster=lookups.in_cluster,
        live=pod.live,
        windows=by_selector or by_name or (pod.live and spec.node_name in lookups.windows_nodes),
        windows_selector=selector.get(OS_LABEL) == "windows",
        host_users=spec.host_users,
        fs_group=security.fs_group,
        supplemental_groups=security.supplemental_groups or (),
        cpu_limit=limits.get("cpu"),
        memory_limit=limits.get("memory"),
        default_cpu_limit=cpu,
        default_memory_limit=memory,
        limit_range_gap=None if pod.live else lookups.gap("limitranges", pod.namespace),
        app_armor=_app_armor(security.app_armor_profile),
    )


def _app_armor(profile: kube.AppArmorProfile | None) -> str | None:
    """The field in the spelling of the older annotation, so that one list of allowed profiles serves both."""
    if profile is None:
        return None
    known = {"RuntimeDefault": "runtime/default", "Unconfined": "unconfined"}
    if profile.type == "Localhost":
        return f"localhost/{profile.localhost_profile or ''}"
    return known.get(profile.type or "", profile.type or "")


_NO_SECURITY = kube.SecurityContext()
_NO_POD_SECURITY = kube.PodSecurityContext()
_NO_CAPABILITIES = kube.Capabilities()


def _container(
    wire: kube.WireContainer,
    kind: str,
    path: str,
    context: kube.PodContext,
    pod_security: kube.PodSecurityContext | None,
    annotations: Mapping[str, Any],
) -> kube.Container:
    own, pod = wire.security_context or _NO_SECURITY, pod_security or _NO_POD_SECURITY
    capabilities = own.capabilities or _NO_CAPABILITIES
    limits = (wire.resources.limits if wire.resources else None) or {}
    inherited = []
    effective = {}
    for field_name, wire_name in _INHERITABLE:
        value = getattr(own, field_name)
        if value is None and (value := getattr(pod, field_name)) is not None:
            inherited.append(wire_name)
        effective[field_name] = value
    annotation = annotations.get(APP_ARMOR + (wire.name or ""))
    return kube.Container(
        name=wire.name or "",
        kind=kind,
        path=path,
        pod=context,
        image=wire.image or "",
        privileged=own.privileged is True,
        allow_privilege_escalation=own.allow_privilege_escalation,
        read_only_root_filesystem=own.read_only_root_filesystem,
        run_as_non_root=effective["run_as_non_root"],
        run_as_user=effective["run_as_user"],
        run_as_group=effective["run_as_group"],
        capabilities_added=capabilities.add or (),
        capabilities_dropped=capabilities.drop or (),
        app_armor=_app_armor(own.app_armor_profile),
        app_armor_annotation=None if annotation is None else str(annotation),
        cpu_limit=limits.get("cpu"),
        memory_limit=limits.get("memory"),
        ports=_ports(wire, path),
        inherited=tuple(inherited),
    )


_INHERITABLE = (
    ("run_as_non_root", "runAsNonRoot"),
    ("run_as_user", "runAsUser"),
    ("run_as_group", "runAsGroup"),
)


def _ports(wire: kube.WireContainer, path: str) -> tuple[kube.Port, ...]:
    return tuple(
        kube.Port(path=f"{path}.ports[{i}]", container_port=p.container_port, host_port=p.host_port)
        for i, p in enumerate(wire.ports or ())
    )


def _workload(
    pod: PodSource,
    spec: kube.WirePodSpec,
    context: kube.PodContext,
    wires: list[tuple[kube.WireContainer, kube.Container]],
    lookups: Lookups,
    invalid: bool,
) -> kube.Workload:
    account = spec.service_account_name or spec.service_account or "default"
    key = (pod.namespace, account)
    template = not pod.live  # admission has already written the account's answer into a running pod
    return kube.Workload(
        pod=context,
        containers=tuple(view for _, view in wires),
        labels=tuple(sorted((k, v) for k, v in texts(pod.labels).items() if k not in GENERATED_LABELS)),
        host_network=spec.host_network is True,
        host_pid=spec.host_pid is True,
        host_ipc=spec.host_ipc is True,
        automount=spec.automount_service_account_token,
        service_account=account,
        service_account_automount=lookups.service_accounts.get(key) if template else None,
        service_account_seen=template and key in lookups.service_accounts,
        service_account_gap=lookups.gap("serviceaccounts", pod.namespace) if template else None,
        service_account_bound=key in lookups.bound_accounts,
        token_mount=_token_mount(wires),
        manual_token=_manual_token(spec, pod.path, wires),
        host_paths=_host_paths(spec, pod.path, wires),
        invalid_containers=invalid,
    )


def _is_token_path(path: str | None) -> bool:
    return path is not None and "/" + posixpath.normpath(path).lstrip("/") == TOKEN_PATH


def _token_mount(wires: list[tuple[kube.WireContainer, kube.Container]]) -> str:
    """The exact path where some container has it, else another spelling of it, else "" """
    paths = {m.mount_path for wire, _ in wires for m in wire.volume_mounts or () if _is_token_path(m.mount_path)}
    return TOKEN_PATH if TOKEN_PATH in paths else min((p for p in paths if p), default="")


def _manual_token(spec: kube.WirePodSpec, path: str, wires: list[tuple[kube.WireContainer, kube.Container]]) -> str:
    elsewhere = {m.name for wire, _ in wires for m in wire.volume_mounts or () if not _is_token_path(m.mount_path)}
    for i, volume in enumerate(spec.volumes or ()):
        if volume.name in elsewhere and _holds_token(volume):
            return f"{path}.volumes[{i}]"
    return ""


def _holds_token(volume: kube.WireVolume) -> bool:
    if volume.secret is not None:
        return bool(_TOKEN_SECRET.search(volume.secret.secret_name or ""))
    sources = (volume.projected.sources if volume.projected else None) or ()
    tokens = [source.service_account_token for source in sources]
    return any(t is not None and not t.audience for t in tokens)


def _host_paths(
    spec: kube.WirePodSpec, path: str, wires: list[tuple[kube.WireContainer, kube.Container]]
) -> tuple[kube.HostPath, ...]:
    found = []
    for i, volume in enumerate(spec.volumes or ()):
        if volume.host_path is None:
            continue
        mounts = tuple(
            kube.Mount(container=c.path, kind=c.kind, path=f"{c.path}.volumeMounts[{j}]", read_only=m.read_only is True)
            for wire, c in wires
            for j, m in enumerate(wire.volume_mounts or ())
            if m.name == volume.name
        )
        place = f"{path}.volumes[{i}].hostPath.path"
        found.append(
            kube.HostPath(volume=volume.name or "", host_path=volume.host_path.path or "", path=place, mounts=mounts)
        )
    return tuple(found)


def template_of(kind: str, data: bytes | Raw) -> tuple[kube.WireTemplate, str]:
    """The pod template of one workload object that is not a Pod, and the path of the template's spec.

    Raises NotUnderstood, also where there is no template: the object could not run.
    """
    template: kube.WireTemplate | None
    if kind == "CronJob":
        cron = decode(data, kube.WireCronJob).spec
        job = cron.job_template if cron else None
        spec, path = job.spec if job else None, "spec.jobTemplate.spec.template"
        template = spec.template if spec else None
    elif kind == "PodTemplate":
        template, path = decode(data, kube.WirePodTemplate).template, "template"
    else:
        spec, path = decode(data, kube.WireController).spec, "spec.template"
        template = spec.template if spec else None
    if template is None or isinstance(template.spec, UnsetType):
        raise NotUnderstood(f"{path}.spec is missing")
    return template, f"{path}.spec"


def annotations_of(raw: Raw | UnsetType) -> Mapping[str, Any] | None:
    """A pod's annotations, decoded only where one of them is read by some check."""
    if isinstance(raw, UnsetType):
        return None
    text = bytes(raw)
    if text.startswith(b"{") and b"apparmor" not in text and b"\\u" not in text:
        return None
    return decode(raw, cast("type[dict[str, Any]]", dict[str, Any] | None))


# ---------------------------------------------------------------------------------------------------------------------
# Services and Ingresses


def service(wire: kube.WireService, resource: kube.Resource) -> kube.Service:
    spec = wire.spec or kube.WireServiceSpec()
    ports = []
    for i, port in enumerate(spec.ports or ()):
        if port.port is None:
            raise NotUnderstood(f"spec.ports[{i}].port is missing")
        ports.append(port.port)
    return kube.Service(resource=resource, type=spec.type or "ClusterIP", ports=tuple(ports))


CLASS_ANNOTATION = "kubernetes.io/ingress.class"
DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
MINION = "nginx.org/mergeable-ingress-type"
GROUP = "alb.ingress.kubernetes.io/group.name"
SSL_REDIRECT = "alb.ingress.kubernetes.io/ssl-redirect"
FRONTEND_CONFIG = "networking.gke.io/v1beta1.FrontendConfig"

# What checks read of an Ingress's annotations; the others may hold configuration that is nobody's business.
_READ_ANNOTATIONS = frozenset(
    {
        CLASS_ANNOTATION,
        MINION,
        GROUP,
        SSL_REDIRECT,
        FRONTEND_CONFIG,
        "kubernetes.io/ingress.allow-http",
        "nginx.ingress.kubernetes.io/force-ssl-redirect",
        "nginx.ingress.kubernetes.io/ssl-redirect",
        "nginx.ingress.kubernetes.io/ssl-passthrough",
        "nginx.ingress.kubernetes.io/auth-tls-secret",
        "appgw.ingress.kubernetes.io/appgw-ssl-certificate",
        "alb.ingress.kubernetes.io/listen-ports",
        "alb.ingress.kubernetes.io/certificate-arn",
        "ingress.gcp.kubernetes.io/pre-shared-cert",
        "networking.gke.io/managed-certificates",
    }
)

_CONTROLLERS = {
    "k8s.io/ingress-nginx": "nginx",
    "nginx.org/ingress-controller": "nginx",
    "webapprouting.kubernetes.azure.com/nginx": "nginx",
    "azure/application-gateway": "appgw",
    "ingress.k8s.aws/alb": "alb",
    "eks.amazonaws.com/alb": "alb",
}
_CLASS_NAMES = {
    "nginx": "nginx",
    "webapprouting.kubernetes.azure.com": "nginx",
    "azure/application-gateway": "appgw",
    "azure-application-gateway": "appgw",
    "alb": "alb",
    "gce": "gce",
    "gce-internal": "gce",
}


@dataclass(slots=True)
class IngressFacts:
    """What Ingresses need to know of one another and of their classes; filled before `ingresses` is called."""

    gke: bool = False  # an Ingress without a class belongs to the GKE controller
    classes: dict[str, str] = field(default_factory=dict)  # class name -> spec.controller
    default_class: str | None = None
    redirecting_frontends: set[tuple[str, str]] = field(default_factory=set)

    def add_class(self, wire: kube.WireIngressClass) -> None:
        meta = wire.metadata or kube.Meta()
        name = meta.name or ""
        self.classes[name] = (wire.spec.controller if wire.spec else None) or ""
        if texts(meta.annotations).get(DEFAULT_CLASS) == "true":
            self.default_class = name

    def add_frontend(self, wire: kube.WireFrontendConfig, namespace: str) -> None:
        redirect = wire.spec.redirect_to_https if wire.spec else None
        if redirect and redirect.enabled and wire.metadata and wire.metadata.name:
            self.redirecting_frontends.add((namespace, wire.metadata.name))


def ingresses(
    wires: list[tuple[kube.WireIngress, kube.Resource]], facts: IngressFacts, lookups: Lookups
) -> list[kube.Ingress]:
    """Every Ingress with its controller and shared settings resolved."""
    redirecting: set[str] = set()
    masters: set[tuple[str, str]] = set()
    for wire, resource in wires:
        notes = ingress_notes(wire.metadata)
        if notes.get(GROUP) and notes.get(SSL_REDIRECT):
            redirecting.add(notes[GROUP])
        if notes.get(MINION) == "master" and wire.spec and wire.spec.tls:
            masters.update((resource.namespace, rule.host) for rule in wire.spec.rules or () if rule.host)
    return [_ingress(wire, resource, facts, lookups, redirecting, masters) for wire, resource in wires]


def ingress_notes(meta: kube.Meta | None) -> dict[str, str]:
    """The annotations that checks read; raises NotUnderstood where one is not text: `false` is not "false"."""
    notes = {k: v for k, v in ((meta and meta.annotations) or {}).items() if k in _READ_ANNOTATIONS and v is not None}
    for name, value in notes.items():
        if not isinstance(value, str):
            raise NotUnderstood(f"annotation {name} is not text but {type(value).__name__}")
    return notes


def _ingress(
    wire: kube.WireIngress,
    resource: kube.Resource,
    facts: IngressFacts,
    lookups: Lookups,
    redirecting: set[str],
    masters: set[tuple[str, str]],
) -> kube.Ingress:
    spec = wire.spec or kube.WireIngressSpec()
    notes = ingress_notes(wire.metadata)
    hosts = tuple(rule.host or "" for rule in spec.rules or ())
    frontend = notes.get(FRONTEND_CONFIG)
    return kube.Ingress(
        resource=resource,
        class_name=spec.ingress_class_name,
        class_annotation=notes.get(CLASS_ANNOTATION),
        controller=_controller(spec.ingress_class_name or notes.get(CLASS_ANNOTATION), facts),
        annotations=notes,
        tls=tuple(entry.hosts or () for entry in spec.tls or ()),
        hosts=hosts,
        group_redirect=notes.get(GROUP, "") in redirecting,
        frontend_redirect=(resource.namespace, frontend or "") in facts.redirecting_frontends,
        master_tls=notes.get(MINION) == "minion"
        and bool(hosts)
        and all((resource.namespace, host) in masters for host in hosts),
        class_gap=lookups.gap("ingressclasses", "*"),
        frontend_gap=lookups.gap("frontendconfigs", resource.namespace) if frontend else None,
    )


def _controller(class_name: str | None, facts: IngressFacts) -> str:
    name = class_name or facts.default_class
    if name is None:
        return "gce" if facts.gke else "other"
    by_class = facts.classes.get(name, "")
    family = _CONTROLLERS.get(by_class) or ("gce" if by_class.startswith("ingress.gcp.kubernetes.io") else None)
    if family:
        return family
    # A class object of an unknown controller is an answer too; only without one does the name have to serve.
    return "other" if by_class else _CLASS_NAMES.get(name, "other")
