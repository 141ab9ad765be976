"""Agents of clouds inside a cluster, by the few objects that show them: what some checks of the control plane rest on.

Of the ConfigMaps only the one that Azure Arc's agents keep is read, of its data only which Arc connection this is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from providers.kubernetes.connection import Connection
from providers.kubernetes.errors import ApiError
from scanner import wire
from scanner.kube import KINDS
from scanner.model import Collected, Gap, GapReason, utc_now
from scanner.normalize import NotUnderstood, decode

Json = dict[str, Any]

ARC = "azure-arc"
# Where Defender's sensor, network policy engines and Azure Policy run, and what they are called there.
_PLACES = {
    ("daemonsets", "kube-system"): ("microsoft-defender-collector-ds", "aws-node", "calico-node", "cilium"),
    ("daemonsets", "mdc"): ("microsoft-defender-collector-ds",),
    ("daemonsets", "calico-system"): ("calico-node",),
    ("deployments", "kube-system"): ("azure-policy",),
}

_ARGUMENT = "--enable-network-policy"  # of the VPC CNI's node agent; other arguments are nobody's business


class _ArcData(msgspec.Struct, frozen=True, rename="upper"):
    azure_subscription_id: str = ""
    azure_resource_group: str = ""
    azure_resource_name: str = ""


class _ArcConfig(wire.Wire, frozen=True):
    data: _ArcData | None = None


class _Container(wire.Wire, frozen=True):
    name: str = ""
    args: tuple[str, ...] | None = None


class _PodSpec(wire.Wire, frozen=True):
    containers: tuple[_Container, ...] = ()


class _Template(wire.Wire, frozen=True):
    spec: _PodSpec = _PodSpec()


class _Spec(wire.Wire, frozen=True):
    template: _Template = _Template()


class _Status(wire.Wire, frozen=True):
    number_ready: int = 0  # of a DaemonSet
    ready_replicas: int = 0  # of a Deployment


class _Agent(wire.Wire, frozen=True):
    metadata: wire.PodMeta = wire.PodMeta()
    spec: _Spec = _Spec()
    status: _Status | None = None


class _Agents(wire.Wire, frozen=True):
    items: tuple[_Agent, ...]


def arc(connection: Connection) -> Collected[Json]:
    """The Azure resource id under which the cluster is connected to Azure Arc, nothing where it is not."""

    def read() -> list[Json]:
        path = f"/api/v1/namespaces/{ARC}/configmaps/azure-clusterconfig"
        data = decode(connection.get(path), _ArcConfig).data or _ArcData()
        if not (data.azure_subscription_id and data.azure_resource_group and data.azure_resource_name):
            raise NotUnderstood("it names no Arc connection")
        group = f"/subscriptions/{data.azure_subscription_id}/resourceGroups/{data.azure_resource_group}"
        return [{"id": f"{group}/providers/Microsoft.Kubernetes/connectedClusters/{data.azure_resource_name}"}]

    return _read("arcConfig", f"get configmaps in namespace {ARC}", read)


def running(connection: Connection, namespaces: Collection[str] | None) -> Collected[Json]:
    """Those agents that are there: kind, namespace, name, whether any of their pods is ready, and what
    their arguments say of network policy.

    `namespaces` are those of the cluster, None where they could not be listed.
    """
    items: list[Json] = []
    gaps: list[Gap] = []
    for (plural, namespace), names in _PLACES.items():
        if namespaces is None or namespace in namespaces:
            found = _listed(connection, plural, namespace)
            items += [item for item in found.items if item["name"] in names]
            gaps += found.gaps
    return Collected(items, gaps)


def _listed(connection: Connection, plural: str, namespace: str) -> Collected[Json]:
    kind = KINDS[plural]

    def read() -> list[Json]:
        path = f"{kind.api}/namespaces/{namespace}/{plural}"
        return [_agent(item, kind.name, namespace) for item in decode(connection.get(path), _Agents).items]

    return _read("agents", f"list {plural}.{kind.group} in namespace {namespace}", read)


def _agent(item: _Agent, kind: str, namespace: str) -> Json:
    status = item.status or _Status()
    return {
        "kind": kind,
        "namespace": namespace,
        "name": item.metadata.name or "",
        "ready": (status.number_ready or status.ready_replicas) > 0,
        "args": [a for c in item.spec.template.spec.containers for a in c.args or () if a.startswith(_ARGUMENT)],
    }


def _read(what: str, permission: str, read: Callable[[], list[Json]]) -> Collected[Json]:
    """Nothing where the API server says that there is nothing; a gap where it says anything else."""
    try:
        return Collected(read())
    except ApiError as error:
        if error.status == 404:
            return Collected()
        reason, detail = error.reason, error.detail
        permission = permission if error.status == 403 else ""
    except NotUnderstood as error:
        reason, detail, permission = GapReason.BAD_DATA, f"the answer is not understood: {error}", ""
    return Collected([], [Gap(what=what, reason=reason, detail=detail, permission=permission, time=utc_now())])
