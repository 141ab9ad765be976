"""Objects -> inventory: attribution to roots, folding of equal pods into shapes, counting.

Pods are folded while they are read: memory follows the distinct shapes, not the pods. Two pods whose spec bytes are
equal but for node and token volume share one decode; two whose views are equal share one judgement.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw, UnsetType

from scanner import ingress, kube, normalize, wire
from scanner.inventory import EPHEMERAL, PODS_KEPT, UNREADABLE, Counts, Invalid, Inventory, Root, RunningImage, Shape
from scanner.kube import Kind, Resource, Source, printable
from scanner.model import Gap
from scanner.normalize import GENERATED_LABELS, Lookups, NotUnderstood, PodSource, decode, texts
from scanner.owners import (
    NODE_NAME,
    OWNED,
    RootKey,
    cron_job_of,
    generated,
    managed_by,
    node_of,
    owner_of,
    root_of_pod,
)

# What one pod runs: its containers, the platform of its node, and what that says of each kind of containers.
_Run = tuple[Any, ...]


@dataclass(slots=True)
class _Pending:
    """A root while its objects are still arriving."""

    labels: dict[str, str] | None = None  # of the root's own object; None until that was read
    managed_by: str | None = None
    namespace_set: bool = True
    source: Source | None = None
    live: bool = False  # some running pod was seen: templates do not count
    by_spec: dict[Any, Shape] = field(default_factory=dict)
    shapes: dict[kube.Workload, Shape] = field(default_factory=dict)
    templates: list[tuple[PodSource, Source | None]] = field(default_factory=list)
    broken: list[tuple[str, str | None]] = field(default_factory=list)  # what was not understood, in which container
    running: dict[_Run, int] = field(default_factory=dict)  # by how many pods

    def add(self, view: kube.Workload, source: Source | None) -> Shape:
        return self.shapes.setdefault(view, Shape(view, source=source))

    def common_labels(self) -> dict[str, str]:
        """What all pods agree on stands for a root whose own object was not read."""
        if self.labels is not None:
            return self.labels
        each = [set(view.labels) for view in self.shapes]
        return dict(sorted(set.intersection(*each))) if each else {}


@dataclass(slots=True)
class Fold:
    """Takes objects one by one; `finish` gives the inventory.

    `keep` says whether an object of a namespace is wanted. Nodes must be read before running pods; otherwise the order
    is free, as templates wait until `finish`.
    """

    kinds: frozenset[str]
    lookups: Lookups = field(default_factory=Lookups)
    ingress_facts: ingress.IngressFacts = field(default_factory=ingress.IngressFacts)
    keep: Callable[[str], bool] = lambda namespace: True
    default_namespace: str = "default"
    _roots: dict[RootKey, _Pending] = field(default_factory=dict)
    _owners: dict[RootKey, RootKey | None] = field(default_factory=dict)
    _with_pods: set[tuple[str, str]] = field(default_factory=set)  # namespace and name of ReplicaSets that run pods
    _runs: dict[_Run, _Run] = field(default_factory=dict)
    _ingresses: list[tuple[wire.Ingress, Resource]] = field(default_factory=list)
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
            meta = decode(data, wire.MetaOnly).metadata or wire.Meta()
        except NotUnderstood:
            meta, readable = wire.Meta(), False
        resource = self._resource(kind, meta, source)
        if not readable or not kind.namespaced or self.keep(resource.namespace):
            self.not_understood(resource, message)

    def not_understood(self, resource: Resource, message: str, container: str | None = None) -> None:
        self.counts.invalid += 1
        self._out.invalid.append(Invalid(resource, message, container))

    # -- pods ---------------------------------------------------------------------------------------------------------

    def _add_pod(self, data: bytes | Raw, source: Source | None) -> None:
        pod = decode(data, wire.Pod)
        meta, phase = pod.metadata or wire.PodMeta(), pod.status.phase if pod.status else None
        namespace = meta.namespace or self.default_namespace
        # What a file says of a pod's fate is only a claim: there everything is judged.
        ended = phase in ("Succeeded", "Failed") and self.lookups.in_cluster
        if ended or not self.keep(namespace):
            self.counts.skipped += 1
            return
        if isinstance(pod.spec, UnsetType):
            raise NotUnderstood("spec is missing")
        spec = bytes(pod.spec)
        key = root_of_pod(meta, namespace, source, spec)
        root = self._pending(key, source, bool(meta.namespace))
        if phase is None and not self.lookups.in_cluster:
            # Only an API server writes a phase: this is a manifest, still to be defaulted.
            notes = normalize.annotations_of(meta.annotations)
            root.templates.append((PodSource(spec, "spec", namespace, meta.labels, notes), source))
        else:
            shape = self._add_running(key, root, spec, meta, source)
            if shape and self.lookups.in_cluster:
                self._add_images(root, shape, pod.status, spec)

    def _add_images(self, root: _Pending, shape: Shape, status: wire.PodStatus | None, spec: bytes) -> None:
        platform = self.lookups.platforms.get(node_of(spec), "")
        run = (_images_of(shape.workload), platform, *_image_ids(status))
        if run not in root.running:  # thousands of roots run a few images: their names are kept once
            run = self._runs.setdefault(run, run)
            root.running[run] = 0
        root.running[run] += 1

    def _add_running(
        self, key: RootKey, root: _Pending, spec: bytes, meta: wire.PodMeta, source: Source | None
    ) -> Shape | None:
        self._with_pods |= {(key.namespace, o.name) for o in meta.owner_references or () if o.controller and o.name}
        root.live = self.lookups.in_cluster  # a pod in a file does not vouch for the template beside it
        name = meta.name or generated(meta.generate_name)
        spec_key = _spec_key(spec, meta, self.lookups)
        shape = root.by_spec.get(spec_key)
        if shape is None:
            try:
                notes = normalize.annotations_of(meta.annotations)
                place = PodSource(spec, "spec", key.namespace, meta.labels, notes, live=True)
                shape = self._shape(place, root, source)
            except NotUnderstood as error:
                root.broken.append((f"pod {printable(name)}: {error}", None))
                return None
            root.by_spec[spec_key] = shape
        shape.count(name)
        return shape

    def _shape(self, place: PodSource, root: _Pending, source: Source | None) -> Shape:
        view, broken = normalize.workload(place, self.lookups)
        root.broken += [(container.message, container.name or UNREADABLE) for container in broken]
        return root.add(view, source)

    # -- controllers --------------------------------------------------------------------------------------------------

    def _add_controller(self, kind: Kind, data: bytes | Raw, source: Source | None) -> None:
        meta = decode(data, wire.MetaOnly).metadata or wire.Meta()
        namespace = meta.namespace or self.default_namespace
        if not self.keep(namespace):
            self.counts.skipped += 1
            return
        key = self._add_owner(kind, meta, source)
        root = self._pending(key, source, bool(meta.namespace))
        root.labels, root.managed_by = texts(meta.labels), managed_by(meta)
        if root.live:
            return  # its running pods are judged, so the template is not even decoded
        template, path, over = normalize.template_of(kind.name, data)
        if over and self._owners.get(key) and (kind.name != "Job" or self.lookups.in_cluster):
            self.counts.skipped += 1  # a former revision, or a run that has ended
            return
        assert not isinstance(template.spec, UnsetType)  # noqa: S101 - for the type checker: template_of has looked
        inner = template.metadata or wire.Meta()
        place = PodSource(bytes(template.spec), path, namespace, inner.labels, inner.annotations)
        root.templates.append((place, source))

    def _add_owner(self, kind: Kind, meta: wire.Meta, source: Source | None = None) -> RootKey:
        """Remember who controls a ReplicaSet, Job or ReplicationController; gives the object's own key."""
        namespace = meta.namespace or self.default_namespace
        path = source.scope if source else ""
        name = meta.name or generated(meta.generate_name) or UNREADABLE
        key = RootKey(path, kind.group, kind.name, namespace, name)
        if kind.name in OWNED:
            self._owners[key] = owner_of(meta, namespace, path) or self._owners.get(key)
        return key

    def add_metadata(self, kind: Kind, data: bytes | Raw) -> None:
        """A ReplicaSet or Job of which only metadata was read: who controls it."""
        self.counts.read += 1
        self.counts.skipped += 1
        try:
            meta = decode(data, wire.MetaOnly).metadata or wire.Meta()
        except NotUnderstood as error:
            self.invalid(kind, data, str(error), None)
            return
        if self.keep(meta.namespace or self.default_namespace):
            self._add_owner(kind, meta)

    def namespaces(self) -> list[str]:
        """The names of the Namespaces read so far."""
        return list(self._out.namespace_labels)

    def without_pods(self, kind: str) -> list[tuple[str, str]]:
        """Namespace and name of the known, uncontrolled objects of a kind that no pod was attributed to."""
        return [
            (key.namespace, key.name)
            for key, owner in self._owners.items()
            if key.kind == kind and owner is None and (key.namespace, key.name) not in self._with_pods
        ]

    # -- other kinds --------------------------------------------------------------------------------------------------

    def _add_other(self, kind: Kind, data: bytes | Raw, source: Source | None) -> None:
        given = decode(data, _WIRE.get(kind.name, wire.MetaOnly))
        resource = self._resource(kind, given.metadata or wire.Meta(), source)
        if isinstance(given, wire.Secret):
            resource = msgspec.structs.replace(resource, type=given.type or "")
        if kind.namespaced and not self.keep(resource.namespace):
            self.counts.skipped += 1
            return
        if kind.name == "Ingress":
            ingress.notes_of(given.metadata)  # raises for what is not understood
            self._ingresses.append((given, resource))
        elif kind.name == "Service":
            self._out.services.append(normalize.service(given, resource))
        else:
            self._look_up(kind, given, resource)

    def _look_up(self, kind: Kind, given: Any, resource: Resource) -> None:
        if kind.name == "ServiceAccount":
            self.lookups.add_service_account(given, resource.namespace)
        elif kind.name == "LimitRange":
            self.lookups.add_limit_range(given, resource.namespace)
        elif kind.name in ("RoleBinding", "ClusterRoleBinding"):
            self.lookups.add_binding(given, resource.namespace)
        elif kind.name == "IngressClass":
            self.ingress_facts.add_class(given)
        elif kind.name == "FrontendConfig":
            self.ingress_facts.add_frontend(given, resource.namespace)
        elif kind.name == "Namespace":
            self._out.namespace_labels[resource.name] = resource.labels
        elif kind.name == "Node" and self.lookups.in_cluster:  # in a file it would be one more claim
            self.lookups.add_node(resource.name, resource.labels)
        if kind.name in ("ServiceAccount", "ConfigMap", "Secret") and kind.plural in self.kinds:
            self._out.others.append(resource)

    # -- finish -------------------------------------------------------------------------------------------------------

    def finish(self) -> Inventory:
        """The inventory, sorted, with templates of roots that have no running pods normalized."""
        out = self._out
        for key in [k for k in self._roots if k.kind in OWNED]:
            self._rehome(key)
        for key in sorted(self._roots):
            root = self._roots.pop(key)
            if not root.live:
                self._shape_templates(root)
            for shape in root.shapes.values():
                shape.workload = normalize.with_account(shape.workload, key.namespace, self.lookups)
            resource = _root_resource(key, root)
            for message, container in root.broken:
                self.not_understood(resource, message, container)
            if root.shapes:
                out.roots.append(Root(resource, list(root.shapes.values()), _running(root)))
        self._runs.clear()
        out.ingresses = ingress.ingresses(self._ingresses, self.ingress_facts, self.lookups)
        if len(self.lookups.clouds) == 1:
            (out.cloud_of_nodes,) = self.lookups.clouds
        platforms = set(self.lookups.platforms.values())
        out.platform_of_nodes = platforms.pop() if len(platforms) == 1 else ""
        out.counts.judged = len(out.roots) + len(out.services) + len(out.ingresses) + len(out.others)
        return out

    def _shape_templates(self, root: _Pending) -> None:
        for place, source in root.templates:
            try:
                self._shape(place, root, source)
            except NotUnderstood as error:
                root.broken.append((str(error), None))

    def _rehome(self, key: RootKey) -> None:
        """Move what was attributed to a ReplicaSet or Job to its controller."""
        owner = self._owners[key] if key in self._owners else cron_job_of(key)
        if owner is None:
            return
        moved = self._roots.pop(key)
        target = self._pending(owner, moved.source, moved.namespace_set)
        target.live = target.live or moved.live
        for view, shape in moved.shapes.items():
            known = target.shapes.setdefault(view, shape)
            if known is not shape:
                known.pods += shape.pods
                known.names = sorted({*known.names, *shape.names})[:PODS_KEPT]
        target.templates += moved.templates
        target.broken += moved.broken
        for run, pods in moved.running.items():
            target.running[run] = target.running.get(run, 0) + pods

    # -- identity -----------------------------------------------------------------------------------------------------

    def _pending(self, key: RootKey, source: Source | None, namespace_set: bool) -> _Pending:
        root = self._roots.get(key)
        if root is None:
            root = self._roots[key] = _Pending(source=source, namespace_set=namespace_set)
        return root

    def _resource(self, kind: Kind, meta: wire.Meta, source: Source | None) -> Resource:
        notes = texts(meta.annotations)
        return Resource(
            group=kind.group,
            kind=kind.name,
            namespace=(meta.namespace or self.default_namespace) if kind.namespaced else "",
            name=meta.name or generated(meta.generate_name) or UNREADABLE,
            labels=texts(meta.labels),
            managed_by=managed_by(meta),
            namespace_set=bool(meta.namespace),
            service_account=notes.get("kubernetes.io/service-account.name", ""),
            source=source,
        )


def _root_resource(key: RootKey, root: _Pending) -> Resource:
    return Resource(
        group=key.group,
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        labels=root.common_labels(),
        managed_by=root.managed_by,
        namespace_set=root.namespace_set,
        workload=True,
        source=root.source,
    )


def _images_of(pod: kube.Workload) -> tuple[tuple[str, str, str], ...]:
    """Kind, name and image of each container."""
    return tuple((c.kind, c.name, c.image) for c in pod.containers)


def _image_ids(status: wire.PodStatus | None) -> Iterator[tuple[wire.ContainerStatus, ...]]:
    """What the node says of regular, init and ephemeral containers; nothing where that is not understood."""
    for data in (
        (status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses)
        if status
        else ()
    ):
        try:
            yield () if isinstance(data, UnsetType) else decode(data, _STATUSES) or ()
        except NotUnderstood:
            yield ()


def _running(root: _Pending) -> list[RunningImage]:
    """One for each container, image, id and platform, also of those whose image no node tells yet."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    for (containers, platform, *statuses), pods in root.running.items():
        ids = {
            (kind, one.name): one.image_id or ""
            for kind, listed in zip(("regular", "init", "ephemeral"), statuses, strict=False)
            for one in listed
        }
        for kind, name, image in containers:
            shown = EPHEMERAL if kind == "ephemeral" else name
            found[shown, image, ids.get((kind, name), ""), platform] += pods
    return [RunningImage(*key, pods=pods) for key, pods in sorted(found.items())]


_STATUSES: Any = tuple[wire.ContainerStatus, ...] | None

_WIRE: dict[str, Any] = {
    "Ingress": wire.Ingress,
    "Service": wire.Service,
    "ServiceAccount": wire.ServiceAccount,
    "LimitRange": wire.LimitRange,
    "RoleBinding": wire.Binding,
    "ClusterRoleBinding": wire.Binding,
    "IngressClass": wire.IngressClass,
    "FrontendConfig": wire.FrontendConfig,
    "Secret": wire.Secret,
}

_TOKEN_VOLUME = re.compile(rb'"name":\s*"kube-api-access-[a-z0-9]{5}"')


def _spec_key(data: bytes, meta: wire.PodMeta, lookups: Lookups) -> tuple[object, ...]:
    """Equal for pods that differ only in what the API server makes up for each: node, token volume, their names.

    The token volume is renamed to a byte that JSON cannot hold, so that no two different specs become equal.
    """
    name = node_of(data)
    volume = _TOKEN_VOLUME.search(data)
    if volume:
        data = data.replace(volume[0], b'"name":"\0"')
    node = NODE_NAME.search(data) if data.count(b'"nodeName"') == 1 else None
    if node:
        data = data[: node.start()] + data[node.end() :]
    labels = tuple((k, v) for k, v in (meta.labels or {}).items() if k not in GENERATED_LABELS)
    notes = b"" if isinstance(meta.annotations, UnsetType) else bytes(meta.annotations)
    windows = lookups.windows_nodes.get(name) if name else None
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return digest, windows, repr(labels), notes if normalize.may_matter(notes) else b""
