"""Kubernetes objects -> judged views with effective values.

The only place that knows where each kind keeps its pod spec, which containers a pod has, and which defaults the API
server would apply.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, cast

import msgspec
from msgspec import Raw, UnsetType

from scanner import kube, quantity, wire
from scanner.kube import APP_ARMOR, TOKEN_PATH, printable
from scanner.model import Gap

T = TypeVar("T")

OS_LABEL = "kubernetes.io/os"
ARCH_LABEL = "kubernetes.io/arch"
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


# What each cloud labels the nodes with that it runs.
_CLOUDS_OF_NODES = (
    ("kubernetes.azure.com/", "azure"),
    ("eks.amazonaws.com/", "aws"),
    ("cloud.google.com/gke-", "gcp"),
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
    return {k: v if isinstance(v, str) else str(v) for k, v in (values or {}).items() if v is not None}


@dataclass(slots=True)
class Lookups:
    """What other objects say about a pod: read before workloads are normalized, shared by a whole cluster or input.

    `gaps` is by plural and namespace, "*" for the whole cluster, None for a namespace that was read all the same.
    """

    service_accounts: dict[tuple[str, str], bool | None] = field(default_factory=dict)
    bound_accounts: set[tuple[str, str]] = field(default_factory=set)
    default_limits: dict[str, tuple[kube.Quantity, kube.Quantity]] = field(default_factory=dict)
    windows_nodes: dict[str, bool] = field(default_factory=dict)  # of every node that was read
    platforms: dict[str, str] = field(default_factory=dict)  # of the same, such as linux/arm64; "" where not told
    clouds: set[str] = field(default_factory=set)  # that labels of nodes tell
    gaps: dict[tuple[str, str], Gap | None] = field(default_factory=dict)
    in_cluster: bool = False

    def gap(self, plural: str, namespace: str) -> Gap | None:
        return self.gaps.get((plural, namespace), self.gaps.get((plural, "*")))

    def add_node(self, name: str, labels: Mapping[str, str]) -> None:
        system, architecture = labels.get(OS_LABEL, ""), labels.get(ARCH_LABEL, "")
        self.windows_nodes[name] = system == "windows"
        self.platforms[name] = f"{system}/{architecture}" if system and architecture else ""
        self.clouds |= {cloud for prefix, cloud in _CLOUDS_OF_NODES for label in labels if label.startswith(prefix)}

    def add_service_account(self, account: wire.ServiceAccount, namespace: str) -> None:
        if account.metadata and account.metadata.name:
            key = namespace, account.metadata.name
            if self.service_accounts.get(key, False) is False:  # of two definitions the one that mounts counts
                self.service_accounts[key] = account.automount_service_account_token

    def add_limit_range(self, limits: wire.LimitRange, namespace: str) -> None:
        """The largest default of each resource counts: the order of several LimitRanges is not defined."""
        cpu, memory = self.default_limits.get(namespace, (None, None))
        for item in (limits.spec.limits if limits.spec else None) or ():
            if item.type == "Container" and item.default:
                cpu = max(cpu, item.default.get("cpu"), key=_size)
                memory = max(memory, item.default.get("memory"), key=_size)
        self.default_limits[namespace] = (cpu, memory)

    def add_binding(self, binding: wire.Binding, namespace: str) -> None:
        for subject in binding.subjects or ():
            if subject.kind == "ServiceAccount" and subject.name:
                self.bound_accounts.add((subject.namespace or namespace, subject.name))


def _size(limit: kube.Quantity) -> float:
    """No limit is the smallest, one that cannot be read the largest: it is the one to report."""
    try:
        return -1.0 if limit is None else float(quantity.parse(limit))
    except (quantity.QuantityError, OverflowError):
        return math.inf


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
    spec = decode(pod.spec, wire.PodSpec)
    if not spec.containers:
        raise NotUnderstood(f"{pod.path} has no containers")
    context = _context(spec, pod, lookups)
    annotations = pod.annotations or {}
    containers: list[kube.Container] = []
    wires: list[tuple[wire.Container, kube.Container]] = []
    invalid: list[InvalidContainer] = []
    for raw, kind, path in _raw_containers(spec, pod.path):
        try:
            given = decode(raw, wire.Container)
            if not given.name:
                raise NotUnderstood("the container has no name")
        except NotUnderstood as error:
            invalid.append(InvalidContainer(_name_of(raw), f"{path}: {error}"))
            continue
        view = _container(given, kind, path, context, spec.security_context, annotations)
        containers.append(view)
        wires.append((given, view))
    return _workload(pod, spec, context, wires, bool(invalid)), tuple(invalid)


def _raw_containers(spec: wire.PodSpec, path: str) -> Iterator[tuple[Raw, str, str]]:
    for attribute, name, kind in _LISTS:
        for i, raw in enumerate(getattr(spec, attribute) or ()):
            yield raw, kind, f"{path}.{name}[{i}]"


class _Named(wire.Wire, frozen=True):
    name: str | None = None


def _name_of(raw: Raw) -> str:
    try:
        return decode(raw, _Named).name or ""
    except NotUnderstood:
        return ""


def _context(spec: wire.PodSpec, pod: PodSource, lookups: Lookups) -> kube.PodContext:
    security = spec.security_context or wire.PodSecurityContext()
    limits = (spec.resources.limits if spec.resources else None) or {}
    selector = spec.node_selector or {}
    # A LimitRange acts at admission: what runs already shows it, what is only a template does not yet.
    cpu, memory = (None, None) if pod.live else lookups.default_limits.get(pod.namespace, (None, None))
    return kube.PodContext(
        path=pod.path,
        in_cluster=lookups.in_cluster,
        live=pod.live,
        windows=_windows(spec, pod, lookups),
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


def _windows(spec: wire.PodSpec, pod: PodSource, lookups: Lookups) -> bool:
    """The node that it runs on knows best, then what the pod says it is, then what it asks for."""
    if pod.live and spec.node_name in lookups.windows_nodes:
        return lookups.windows_nodes[spec.node_name]
    if spec.os is not None and spec.os.name:
        return spec.os.name == "windows"
    return any((spec.node_selector or {}).get(key) == "windows" for key in _OS_SELECTORS)


def _app_armor(profile: wire.AppArmorProfile | None) -> str | None:
    """The field in the spelling of the older annotation, so that one list of allowed profiles serves both."""
    if profile is None:
        return None
    known = {"RuntimeDefault": "runtime/default", "Unconfined": "unconfined"}
    if profile.type == "Localhost":
        return f"localhost/{profile.localhost_profile or ''}"
    return known.get(profile.type or "", f"unknown type {profile.type!r}")  # allowed by no list


_NO_SECURITY = wire.SecurityContext()
_NO_POD_SECURITY = wire.PodSecurityContext()
_NO_CAPABILITIES = wire.Capabilities()


def _container(
    given: wire.Container,
    kind: str,
    path: str,
    context: kube.PodContext,
    pod_security: wire.PodSecurityContext | None,
    annotations: Mapping[str, Any],
) -> kube.Container:
    own, pod = given.security_context or _NO_SECURITY, pod_security or _NO_POD_SECURITY
    capabilities = own.capabilities or _NO_CAPABILITIES
    limits = (given.resources.limits if given.resources else None) or {}
    inherited = []
    effective = {}
    for field_name, wire_name in _INHERITABLE:
        value = getattr(own, field_name)
        if value is None and (value := getattr(pod, field_name)) is not None:
            inherited.append(wire_name)
        effective[field_name] = value
    annotation = annotations.get(APP_ARMOR + (given.name or ""))
    return kube.Container(
        name=given.name or "",
        kind=kind,
        path=path,
        pod=context,
        image=given.image or "",
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
        ports=_ports(given, path),
        inherited=tuple(inherited),
    )


_INHERITABLE = (
    ("run_as_non_root", "runAsNonRoot"),
    ("run_as_user", "runAsUser"),
    ("run_as_group", "runAsGroup"),
)


def _ports(given: wire.Container, path: str) -> tuple[kube.Port, ...]:
    return tuple(
        kube.Port(path=f"{path}.ports[{i}]", container_port=p.container_port, host_port=p.host_port)
        for i, p in enumerate(given.ports or ())
    )


def _workload(
    pod: PodSource,
    spec: wire.PodSpec,
    context: kube.PodContext,
    wires: list[tuple[wire.Container, kube.Container]],
    invalid: bool,
) -> kube.Workload:
    return kube.Workload(
        pod=context,
        containers=tuple(view for _, view in wires),
        labels=tuple(sorted((k, v) for k, v in texts(pod.labels).items() if k not in GENERATED_LABELS)),
        host_network=spec.host_network is True,
        host_pid=spec.host_pid is True,
        host_ipc=spec.host_ipc is True,
        automount=spec.automount_service_account_token,
        service_account=spec.service_account_name or spec.service_account or "default",
        token_mount=_token_mount(wires),
        manual_token=_manual_token(spec, pod.path, wires),
        host_paths=_host_paths(spec, pod.path, wires),
        invalid_containers=invalid,
    )


def with_account(view: kube.Workload, namespace: str, lookups: Lookups) -> kube.Workload:
    """With what its ServiceAccount says; admission has already written that into the running pods of a cluster."""
    key = (namespace, view.service_account)
    bound = key in lookups.bound_accounts
    if view.pod.live and view.pod.in_cluster:
        return msgspec.structs.replace(view, service_account_bound=True) if bound else view
    return msgspec.structs.replace(
        view,
        service_account_automount=lookups.service_accounts.get(key),
        service_account_seen=key in lookups.service_accounts,
        service_account_gap=lookups.gap("serviceaccounts", namespace),
        service_account_bound=bound,
    )


def _is_token_path(path: str | None) -> bool:
    return path is not None and "/" + posixpath.normpath(path).lstrip("/") == TOKEN_PATH


def _token_mount(wires: list[tuple[wire.Container, kube.Container]]) -> str:
    """The exact path where some container has it, else another spelling of it, else "" """
    paths = {m.mount_path for given, _ in wires for m in given.volume_mounts or () if _is_token_path(m.mount_path)}
    return TOKEN_PATH if TOKEN_PATH in paths else min((p for p in paths if p), default="")


def _manual_token(spec: wire.PodSpec, path: str, wires: list[tuple[wire.Container, kube.Container]]) -> str:
    elsewhere = {m.name for given, _ in wires for m in given.volume_mounts or () if not _is_token_path(m.mount_path)}
    for i, volume in enumerate(spec.volumes or ()):
        if volume.name in elsewhere and _holds_token(volume):
            return f"{path}.volumes[{i}]"
    return ""


def _holds_token(volume: wire.Volume) -> bool:
    if volume.secret is not None:
        return bool(_TOKEN_SECRET.search(volume.secret.secret_name or ""))
    sources = (volume.projected.sources if volume.projected else None) or ()
    tokens = [source.service_account_token for source in sources]
    return any(t is not None and not t.audience for t in tokens)


def _host_paths(
    spec: wire.PodSpec, path: str, wires: list[tuple[wire.Container, kube.Container]]
) -> tuple[kube.HostPath, ...]:
    found = []
    for i, volume in enumerate(spec.volumes or ()):
        if volume.host_path is None:
            continue
        mounts = tuple(
            kube.Mount(container=c.path, path=f"{c.path}.volumeMounts[{j}]", read_only=m.read_only is True)
            for given, c in wires
            for j, m in enumerate(given.volume_mounts or ())
            if m.name == volume.name
        )
        place = f"{path}.volumes[{i}].hostPath.path"
        found.append(kube.HostPath(host_path=volume.host_path.path or "", path=place, mounts=mounts))
    return tuple(found)


def template_of(kind: str, data: bytes | Raw) -> tuple[wire.Template, str, bool]:
    """The pod template of one workload object that is not a Pod, the path of the template's spec, and whether it is
    over: a revision scaled to nothing, or a run that has ended.

    Raises NotUnderstood, also where there is no template: the object could not run.
    """
    template: wire.Template | None
    over = False
    if kind == "CronJob":
        cron = decode(data, wire.CronJob).spec
        job = cron.job_template if cron else None
        spec, path = job.spec if job else None, "spec.jobTemplate.spec.template"
        template = spec.template if spec else None
    elif kind == "PodTemplate":
        template, path = decode(data, wire.PodTemplate).template, "template"
    else:
        controller = decode(data, wire.Controller)
        spec, path = controller.spec, "spec.template"
        template = spec.template if spec else None
        over = _has_ended(controller) if kind == "Job" else spec is not None and spec.replicas == 0
    if template is None or isinstance(template.spec, UnsetType):
        raise NotUnderstood(f"{path}.spec is missing")
    return template, f"{path}.spec", over


def _has_ended(job: wire.Controller) -> bool:
    conditions = (job.status.conditions if job.status else None) or ()
    return any(c.type in ("Complete", "Failed") and c.status == "True" for c in conditions)


def annotations_of(raw: Raw | UnsetType) -> Mapping[str, Any] | None:
    """A pod's annotations, decoded only where one of them is read by some check."""
    if isinstance(raw, UnsetType) or not may_matter(bytes(raw)):
        return None
    return decode(raw, cast("type[dict[str, Any]]", dict[str, Any] | None))


def may_matter(annotations: bytes) -> bool:
    """Whether a check may read one of them; anything that is no JSON object, or is escaped, has to be looked at."""
    return not annotations.startswith(b"{") or b"apparmor" in annotations or b"\\u" in annotations


def service(given: wire.Service, resource: kube.Resource) -> kube.Service:
    spec = given.spec or wire.ServiceSpec()
    ports = []
    for i, port in enumerate(spec.ports or ()):
        if port.port is None:
            raise NotUnderstood(f"spec.ports[{i}].port is missing")
        ports.append(port.port)
    return kube.Service(resource=resource, type=spec.type or "ClusterIP", ports=tuple(ports))
