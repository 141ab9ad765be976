"""Attribution: the root an object belongs to, so that ids outlive rollouts, cron runs and restarts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import UnsetType

from scanner import wire
from scanner.inventory import UNREADABLE
from scanner.kube import BY_NAME, Kind, Source
from scanner.normalize import decode, texts

MIRROR = b"kubernetes.io/config.mirror"  # annotation of static pods
NODE_NAME = re.compile(rb'"nodeName":\s*"([^"\\]*)",?')

# Kinds that are often controlled themselves; what they control is attributed one step further up.
OWNED = ("ReplicaSet", "Job", "ReplicationController")
_CRON_RUN = re.compile(r"(.+)-\d{8,10}")
_HASHED = (
    ("pod-template-hash", "apps", "Deployment"),
    ("rollouts-pod-template-hash", "argoproj.io", "Rollout"),
)


class RootKey(NamedTuple):
    """What makes two objects of one input the same; `path` is that of the file, "" in a cluster."""

    path: str
    group: str
    kind: str
    namespace: str
    name: str


def root_of_pod(meta: wire.PodMeta, namespace: str, source: Source | None, spec: bytes) -> RootKey:
    """A Deployment and a Rollout are told by the hash label; other ReplicaSets and Jobs wait for `finish`."""
    name = meta.name or ""
    path = source.scope if source else ""
    owner = _controller(meta.owner_references, namespace, path)
    if owner is None:
        mirror = not isinstance(meta.annotations, UnsetType) and MIRROR in bytes(meta.annotations)
        node = node_of(spec) if mirror else ""
        if node:
            return RootKey(path, "", "Pod", namespace, name.removesuffix("-" + node))
        return RootKey(path, "", "Pod", namespace, generated(meta.generate_name) or name or UNREADABLE)
    if owner.kind == "Node":
        return RootKey(path, "", "Pod", namespace, name.removesuffix("-" + owner.name))
    if owner.kind == "ReplicaSet":
        for label, group, kind in _HASHED:
            suffix = f"-{(meta.labels or {}).get(label)}"
            if owner.name.endswith(suffix) and owner.name != suffix:
                return RootKey(path, group, kind, namespace, owner.name.removesuffix(suffix))
    return owner


class _Scheduled(wire.Wire, frozen=True):
    node_name: str | None = None


def node_of(spec: bytes) -> str:
    """The node that a pod runs on, "" for none. Only a spec in which something else has that name is decoded for it.
    Raises NotUnderstood."""
    if spec.count(b'"nodeName"') > 1:
        return decode(spec, _Scheduled).node_name or ""
    node = NODE_NAME.search(spec)
    return node[1].decode("utf-8", "replace") if node else ""


def owner_of(meta: wire.Meta, namespace: str, path: str) -> RootKey | None:
    """The controller of an object that is no pod."""
    return _controller(meta.owner_references, namespace, path)


def _controller(owners: Sequence[wire.OwnerReference] | None, namespace: str, path: str) -> RootKey | None:
    for owner in owners or ():
        if owner.controller and owner.kind and owner.name:
            return RootKey(path, group_of(owner.api_version, owner.kind), owner.kind, namespace, owner.name)
    return None


def cron_job_of(run: RootKey) -> RootKey | None:
    """The CronJob of a Job that is not in view, by the name that the CronJob controller gives its runs."""
    match = _CRON_RUN.fullmatch(run.name) if run.kind == "Job" else None
    return RootKey(run.path, "batch", "CronJob", run.namespace, match[1]) if match else None


def generated(prefix: str | None) -> str:
    return f"{prefix}*" if prefix else ""


def group_of(api_version: str | None, kind: str) -> str:
    """The canonical API group: `extensions` has moved to apps and networking.k8s.io."""
    group = (api_version or "").rpartition("/")[0]
    if group == "extensions":
        return "networking.k8s.io" if kind == "Ingress" else "apps"
    return group


def kind_of(header: wire.Header) -> Kind | None:
    """The kind that some check reads, or None for every other."""
    known = BY_NAME.get(header.kind or "")
    return known if known and group_of(header.api_version, known.name) == known.group else None


_BY_LOWER_NAME = {name.lower(): kind for name, kind in BY_NAME.items()}


def misspelt(api_version: str, kind: str) -> Kind | None:
    """A kind of Kubernetes' own under a group or a spelling that it does not have; custom groups have a dot."""
    group = api_version.rpartition("/")[0].lower()
    return _BY_LOWER_NAME.get(kind.lower()) if "." not in group or group.endswith(".k8s.io") else None


def managed_by(meta: wire.Meta) -> str | None:
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
