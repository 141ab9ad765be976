"""Objects -> inventory: attribution to the root controller, folding of equal pods into shapes, counting.

Pods are folded while they are read: memory follows the distinct shapes, not the pods. Two pods whose spec bytes are
equal but for node and token volume share one decode; two whose views are equal share one judgement.
"""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw, UnsetType

from scanner import kube, normalize
from scanner.kube import BY_NAME, Kind, Resource, Source, printable
from scanner.model import Gap
from scanner.normalize import GENERATED_LABELS, Lookups, NotUnderstood, PodSource, decode, texts

PODS_KEPT = 10  # names shown as examples for each shape
UNREADABLE = "~unreadable"  # name of an object whose own name could not be read


class Shape(msgspec.Struct):
    """One distinct pod of a root; `pods` counts the running ones, 0 for a template; `names` are ten of them, sorted."""

    workload: kube.Workload
    pods: int = 0
    names: list[str] = []
    source: Source | None = None

    def count(self, name: str) -> None:
        self.pods += 1
        if len(self.names) < PODS_KEPT or name < self.names[-1]:
            bisect.insort(self.names, name)
            del self.names[PODS_KEPT:]


class Root(msgspec.Struct):
    """A root controller, or a pod without one, with every distinct shape of its pods.

    `invalid` says that some pod of it could not be understood, so that nothing may pass for the whole root.
    """

    resource: Resource
    shapes: list[Shape] = []
    invalid: bool = False


class Invalid(msgspec.Struct, frozen=True):
    """An object or container that could not be understood."""

    resource: Resource
    message: str
    container: str | None = None


class Counts(msgspec.Struct):
    """Objects read, judged, skipped (of kinds that no check reads, or out of scope) and not understood."""

    read: int = 0
    judged: int = 0
    skipped: int = 0
    invalid: int = 0
    files_read: int = 0
    files_failed: int = 0
    lists_asked: int = 0  # list calls and documents: what --min-coverage is a share of
    lists_read: int = 0


class Inventory(msgspec.Struct):
    """What one cluster, or one set of files, holds. `kinds` are the plurals that were asked for."""

    kinds: list[str]
    roots: list[Root] = []
    services: list[kube.Service] = []
    ingresses: list[kube.Ingress] = []
    others: list[Resource] = []  # judged by identity alone: ServiceAccount, ConfigMap, Secret
    invalid: list[Invalid] = []
    gaps: list[Gap] = []
    namespace_labels: dict[str, dict[str, str]] = {}
    counts: Counts = msgspec.field(default_factory=Counts)

    @property
    def complete(self) -> bool:
        return not (self.gaps or self.invalid or self.counts.files_failed)

    def gaps_of(self, plurals: tuple[str, ...]) -> list[Gap]:
        return [g for g in self.gaps if g.what in plurals]


# (source path or "", group, kind, namespace, name)
RootKey = tuple[str, str, str, str, str]


@dataclass(slots=True)
class _Pending:
    """A root while its objects are still arriving."""

    labels: dict[str, str] = field(default_factory=dict)
    managed_by: str | None = None
    namespace_set: bool = True
    source: Source | None = None
    by_spec: dict[Any, Shape] = field(default_factory=dict)
    shapes: dict[kube.Workload, Shape] = field(default_factory=dict)
    templates: list[tuple[PodSource, Source | None]] = field(default_factory=list)
    invalid: bool = False
    named: bool = False  # the root's own object was read


@dataclass(slots=True)
class Fold:
    """Takes objects one by one, in any order; `finish` gives the inventory.

    `keep` says whether an object of a namespace is wanted. Objects that other kinds are looked up by (ServiceAccounts,
    LimitRanges, bindings, nodes) must be read before running pods; templates wait until `finish`.
    """

    kinds: frozenset[str]
    lookups: Lookups = field(default_factory=Lookups)
    ingress_facts: normalize.IngressFacts = field(default_factory=normalize.IngressFacts)
    keep: Callable[[str], bool] = lambda namespace: True
    default_namespace: str = "default"
    _roots: dict[RootKey, _Pending] = field(default_factory=dict)
    _owners: dict[RootKey, RootKey | None] = field(default_factory=dict)
    _ingresses: list[tuple[kube.WireIngress, Resource]] = field(default_factory=list)
    _out: Inventory = field(init=False)

    def __post_init__(self) -> None:
        self._out = Inventory(kinds=sorted(self.kinds))

    @property
    def counts(self) -> Counts:
        return self._out.counts

    def gap(self, gap: Gap) -> None:
        self._out.gaps.append(gap)
        self.lookups.gaps[gap.what, gap.namespace] = gap

    def skip(self) -> None:
        """A document that is no Kubernetes object."""
        self.counts.skipped += 1

    def skip_kind(self) -> None:
        """An object of a kind that no check reads."""
        self.counts.read += 1
        self.counts.skipped += 1

    def add(self, kind: Kind, data: bytes | Raw, source: Source | None = None) -> None:
        """One object, as JSON bytes."""
        self.counts.read += 1
        try:
            if kind.name == "Pod":
                self._add_pod(data, source)
            elif kind.plural in kube.WORKLOADS:
                self._add_controller(kind, data, source)
            else:
                self._add_other(kind, data, source)
        except NotUnderstood as error:
            self.invalid(kind, data, str(error), source)

    def add_broken(self, kind: Kind, data: bytes | Raw, message: str, source: Source | None) -> None:
        """An object that is known to be broken: reported under its name, if that can be read."""
        self.counts.read += 1
        self.invalid(kind, data, message, source)

    def invalid(self, kind: Kind, data: bytes | Raw, message: str, source: Source | None) -> None:
        readable = True
        try:
            meta = decode(data, kube.MetaOnly).metadata or kube.Meta()
        except NotUnderstood:
            meta, readable = kube.Meta(), False
        resource = self._resource(kind, meta, source)
        if not readable or not kind.namespaced or self.keep(resource.namespace):
            self.not_understood(resource, message)

    def not_understood(self, resource: Resource, message: str, container: str | None = None) -> None:
        self.counts.invalid += 1
        self._out.invalid.append(Invalid(resource, message, container))

    # -- pods ---------------------------------------------------------------------------------------------------------

    def _add_pod(self, data: bytes | Raw, source: Source | None) -> None:
        pod = decode(data, kube.WirePod)
        meta, phase = pod.metadata or kube.PodMeta(), pod.status.phase if pod.status else None
        namespace = meta.namespace or self.default_namespace
        if phase in ("Succeeded", "Failed") or not self.keep(namespace):
            self.counts.skipped += 1
            return
        if isinstance(pod.spec, UnsetType):
            raise NotUnderstood("spec is missing")
        name = meta.name or _generated(meta.generate_name)
        spec = bytes(pod.spec)
        key = _pod_root(meta, namespace, source, spec)
        root = self._pending(key, source, bool(meta.namespace))
        spec_key = (phase is None, _spec_key(spec, meta, self.lookups))
        shape = root.by_spec.get(spec_key)
        if shape is None:
            try:
                annotations = normalize.annotations_of(meta.annotations)
                # Only an API server writes a phase: without one this is a manifest, still to be defaulted.
                place = PodSource(spec, "spec", namespace, meta.labels, annotations, live=phase is not None)
                shape = self._pod_shape(place, key, root, source)
            except NotUnderstood as error:
                root.invalid = True
                self.not_understood(self._root_resource(key, root), f"pod {printable(name)}: {error}")
                return
            root.by_spec[spec_key] = shape
        if not root.named and not root.labels:
            root.labels = dict(shape.workload.labels)
        shape.count(name)

    def _pod_shape(self, place: PodSource, key: RootKey, root: _Pending, source: Source | None) -> Shape:
        view, broken = normalize.workload(place, self.lookups)
        for container in broken:
            self.not_understood(self._root_resource(key, root), container.message, container.name or UNREADABLE)
        return root.shapes.setdefault(view, Shape(view, source=source))

    # -- controllers --------------------------------------------------------------------------------------------------

    def _add_controller(self, kind: Kind, data: bytes | Raw, source: Source | None) -> None:
        meta = decode(data, kube.MetaOnly).metadata or kube.Meta()
        namespace = meta.namespace or self.default_namespace
        if not self.keep(namespace):
            self.counts.skipped += 1
            return
        key = self.add_owner(kind, meta, source)
        if kind.name == "ReplicaSet" and (self._owners.get(key) or key)[2] == "Deployment":
            self.counts.skipped += 1  # a revision: the Deployment itself is judged
            return
        root = self._pending(key, source, bool(meta.namespace))
        root.labels, root.managed_by, root.named = texts(meta.labels), _managed_by(meta), True
        if root.shapes:
            return  # its running pods are judged, so the template is not even decoded
        template, path = normalize.template_of(kind.name, data)
        assert not isinstance(template.spec, UnsetType)  # noqa: S101 - for the type checker: template_of has looked
        inner = template.metadata or kube.Meta()
        place = PodSource(bytes(template.spec), path, namespace, inner.labels, inner.annotations)
        root.templates.append((place, source))

    def add_owner(self, kind: Kind, meta: kube.Meta, source: Source | None = None) -> RootKey:
        """Remember who controls a ReplicaSet, Job or ReplicationController; gives the object's own key."""
        namespace = meta.namespace or self.default_namespace
        path = source.scope if source else ""
        name = meta.name or _generated(meta.generate_name) or UNREADABLE
        key = (path, kind.group, kind.name, namespace, name)
        if kind.name in _OWNED:
            owner = next((o for o in meta.owner_references or () if o.controller and o.kind and o.name), None)
            self._owners[key] = (
                (path, _group(owner.api_version, owner.kind or ""), owner.kind or "", namespace, owner.name or "")
                if owner
                else None
            )
        return key

    def skip_owned(self, kind: Kind, meta: kube.Meta) -> None:
        """Take note of an object of which only metadata was read."""
        self.add_owner(kind, meta)
        self.counts.skipped += 1

    def namespaces(self) -> list[str]:
        """The names of the Namespaces read so far."""
        return list(self._out.namespace_labels)

    def without_pods(self, kind: str) -> list[tuple[str, str]]:
        """Namespace and name of the known, uncontrolled objects of a kind that no pod was attributed to."""
        return [
            (key[3], key[4])
            for key, owner in self._owners.items()
            if key[2] == kind and owner is None and not (key in self._roots and self._roots[key].shapes)
        ]

    # -- other kinds --------------------------------------------------------------------------------------------------

    def _add_other(self, kind: Kind, data: bytes | Raw, source: Source | None) -> None:
        wire_type = _WIRE.get(kind.name, kube.MetaOnly)
        wire = decode(data, wire_type)
        resource = self._resource(kind, wire.metadata or kube.Meta(), source)
        if isinstance(wire, kube.WireSecret):
            resource = msgspec.structs.replace(resource, type=wire.type or "")
        if kind.namespaced and not self.keep(resource.namespace):
            self.counts.skipped += 1
            return
        if kind.name == "Ingress":
            normalize.ingress_notes(wire.metadata)  # raises for what is not understood
            self._ingresses.append((wire, resource))
        elif kind.name == "Service":
            self._out.services.append(normalize.service(wire, resource))
        else:
            self._look_up(kind, wire, resource)

    def _look_up(self, kind: Kind, wire: Any, resource: Resource) -> None:
        if kind.name == "ServiceAccount":
            self.lookups.add_service_account(wire, resource.namespace)
        elif kind.name == "LimitRange":
            self.lookups.add_limit_range(wire, resource.namespace)
        elif kind.name in ("RoleBinding", "ClusterRoleBinding"):
            self.lookups.add_binding(wire, resource.namespace)
        elif kind.name == "IngressClass":
            self.ingress_facts.add_class(wire)
        elif kind.name == "FrontendConfig":
            self.ingress_facts.add_frontend(wire, resource.namespace)
        elif kind.name == "Namespace":
            self._out.namespace_labels[resource.name] = resource.labels
        elif kind.name == "Node" and resource.labels.get(normalize.OS_LABEL) == "windows":
            self.lookups.windows_nodes.add(resource.name)
        if kind.name in ("ServiceAccount", "ConfigMap", "Secret") and kind.plural in self.kinds:
            self._out.others.append(resource)

    # -- finish -------------------------------------------------------------------------------------------------------

    def finish(self) -> Inventory:
        """The inventory, sorted, with templates of roots that have no running pods normalized."""
        out = self._out
        for key in [k for k in self._roots if k[2] in _OWNED]:
            self._rehome(key)
        for key in sorted(self._roots):
            root = self._roots.pop(key)
            resource = self._root_resource(key, root)
            if not root.invalid and not any(view.pod.live for view in root.shapes):
                self._shape_templates(root, resource)
            if root.shapes or root.invalid:
                out.roots.append(Root(resource, list(root.shapes.values()), root.invalid))
        out.ingresses = normalize.ingresses(self._ingresses, self.ingress_facts, self.lookups)
        out.counts.judged = len(out.roots) + len(out.services) + len(out.ingresses) + len(out.others)
        return out

    def _shape_templates(self, root: _Pending, resource: Resource) -> None:
        for place, source in root.templates:
            try:
                view, broken = normalize.workload(place, self.lookups)
            except NotUnderstood as error:
                root.invalid = True
                self.not_understood(resource, str(error))
                continue
            for container in broken:
                self.not_understood(resource, container.message, container.name or UNREADABLE)
            root.shapes.setdefault(view, Shape(view, source=source))

    def _rehome(self, key: RootKey) -> None:
        """Move what was attributed to a ReplicaSet or Job to its controller."""
        owner = self._owners.get(key)
        if owner is None and key not in self._owners and key[2] == "Job" and (run := _CRON_RUN.fullmatch(key[4])):
            # The Job itself is not in view, but the CronJob controller names its runs this way.
            owner = (key[0], "batch", "CronJob", key[3], run[1])
        if owner is None:
            return
        moved = self._roots.pop(key)
        target = self._pending(owner, moved.source, moved.namespace_set)
        for view, shape in moved.shapes.items():
            known = target.shapes.setdefault(view, shape)
            if known is not shape:
                known.pods += shape.pods
                known.names = sorted({*known.names, *shape.names})[:PODS_KEPT]
        target.invalid = target.invalid or moved.invalid
        if not target.named:
            target.labels = target.labels or moved.labels
            target.templates += moved.templates

    # -- identity -----------------------------------------------------------------------------------------------------

    def _pending(self, key: RootKey, source: Source | None, namespace_set: bool) -> _Pending:
        root = self._roots.get(key)
        if root is None:
            root = self._roots[key] = _Pending(source=source, namespace_set=namespace_set)
        return root

    def _root_resource(self, key: RootKey, root: _Pending) -> Resource:
        _, group, kind, namespace, name = key
        return Resource(
            group=group,
            kind=kind,
            namespace=namespace,
            name=name,
            labels=root.labels,
            managed_by=root.managed_by,
            namespace_set=root.namespace_set,
            workload=True,
            source=root.source,
        )

    def _resource(self, kind: Kind, meta: kube.Meta, source: Source | None) -> Resource:
        notes = texts(meta.annotations)
        return Resource(
            group=kind.group,
            kind=kind.name,
            namespace=(meta.namespace or self.default_namespace) if kind.namespaced else "",
            name=meta.name or _generated(meta.generate_name) or UNREADABLE,
            labels=texts(meta.labels),
            managed_by=_managed_by(meta),
            namespace_set=bool(meta.namespace),
            service_account=notes.get("kubernetes.io/service-account.name", ""),
            source=source,
        )


_WIRE: dict[str, Any] = {
    "Ingress": kube.WireIngress,
    "Service": kube.WireService,
    "ServiceAccount": kube.WireServiceAccount,
    "LimitRange": kube.WireLimitRange,
    "RoleBinding": kube.WireBinding,
    "ClusterRoleBinding": kube.WireBinding,
    "IngressClass": kube.WireIngressClass,
    "FrontendConfig": kube.WireFrontendConfig,
    "Secret": kube.WireSecret,
}
_OWNED = ("ReplicaSet", "Job", "ReplicationController")
_CRON_RUN = re.compile(r"(.+)-\d{8,10}")
_HASHED = (
    ("pod-template-hash", "apps", "Deployment"),
    ("rollouts-pod-template-hash", "argoproj.io", "Rollout"),
)
_MOVED_GROUPS = {"extensions": {"Ingress": "networking.k8s.io"}}

_TOKEN_VOLUME = re.compile(rb'"(kube-api-access-[a-z0-9]{5})"')
_NODE_NAME = re.compile(rb'"nodeName":\s*"([^"\\]*)",?')


def _pod_root(meta: kube.PodMeta, namespace: str, source: Source | None, spec: bytes) -> RootKey:
    """A Deployment and a Rollout are told by the hash label; other ReplicaSets and Jobs wait for `finish`."""
    name = meta.name or ""
    owner = next((o for o in meta.owner_references or () if o.controller), None)
    path = source.scope if source else ""
    if owner is None or not owner.kind or not owner.name:
        mirror = not isinstance(meta.annotations, UnsetType) and normalize.MIRROR.encode() in bytes(meta.annotations)
        node = _NODE_NAME.search(spec) if mirror else None
        if node:
            return (path, "", "Pod", namespace, name.removesuffix("-" + node[1].decode("utf-8", "replace")))
        return (path, "", "Pod", namespace, _generated(meta.generate_name) or name or UNREADABLE)
    if owner.kind == "Node":
        return (path, "", "Pod", namespace, name.removesuffix("-" + owner.name))
    if owner.kind == "ReplicaSet":
        for label, group, kind in _HASHED:
            suffix = f"-{(meta.labels or {}).get(label)}"
            if owner.name.endswith(suffix) and owner.name != suffix:
                return (path, group, kind, namespace, owner.name.removesuffix(suffix))
    return (path, _group(owner.api_version, owner.kind), owner.kind, namespace, owner.name)


def _spec_key(data: bytes, meta: kube.PodMeta, lookups: Lookups) -> tuple[object, ...]:
    """Equal for pods that differ only in what the API server makes up for each: node, token volume, their names.

    The token volume is renamed to a byte that JSON cannot hold, so that no two different specs become equal.
    """
    volume = _TOKEN_VOLUME.search(data)
    if volume:
        data = data.replace(volume[1], b"\0")
    node = _NODE_NAME.search(data)
    if node:
        data = data[: node.start()] + data[node.end() :]
    labels = tuple((k, v) for k, v in (meta.labels or {}).items() if k not in GENERATED_LABELS)
    notes = b"" if isinstance(meta.annotations, UnsetType) else bytes(meta.annotations)
    windows = node is not None and node[1].decode("utf-8", "replace") in lookups.windows_nodes
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return digest, windows, repr(labels), notes if b"apparmor" in notes else b""


def _generated(prefix: str | None) -> str:
    return f"{prefix}*" if prefix else ""


def _group(api_version: str | None, kind: str) -> str:
    """The canonical API group: `extensions` has moved to apps and networking.k8s.io."""
    group, slash, _ = (api_version or "").rpartition("/")
    if group == "extensions" and slash:
        return _MOVED_GROUPS["extensions"].get(kind, "apps")
    return group


def kind_of(header: kube.Header) -> Kind | None:
    """The kind that some check reads, or None for every other."""
    known = BY_NAME.get(header.kind or "")
    return known if known and _group(header.api_version, known.name) == known.group else None


def _managed_by(meta: kube.Meta) -> str | None:
    """Helm release, Argo CD application or Flux object that owns the manifest, by their usual marks."""
    labels: Mapping[str, str] = texts(meta.labels)
    notes: Mapping[str, str] = texts(meta.annotations)
    if tracking := notes.get("argocd.argoproj.io/tracking-id"):
        return f"argocd:{tracking.partition(':')[0]}"
    if app := labels.get("argocd.argoproj.io/instance"):
        return f"argocd:{app}"
    for tool in ("kustomize", "helm"):
        if name := labels.get(f"{tool}.toolkit.fluxcd.io/name"):
            return f"flux:{labels.get(f'{tool}.toolkit.fluxcd.io/namespace', '')}/{name}"
    if release := notes.get("meta.helm.sh/release-name"):
        return f"helm:{notes.get('meta.helm.sh/release-namespace', '')}/{release}"
    return None
