"""A sample cluster of any size, as a real API server returns it: 6.6 KB of JSON a pod, good and bad settings mixed.

Everything follows from an index, so any slice can be made alone: pod `i` belongs to workload `i // replicas`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apiserver import ApiServer

Object = dict[str, Any]

TEAMS = 20
CLUSTER_UID = "6f1f9a52-3a5e-4b0b-9d2e-0c1d5a4b7e10"  # of namespace kube-system
_TIME = "2026-08-01T10:00:00Z"
_SAFE = "bcdfghjklmnpqrstvwxz2456789"  # what Kubernetes makes random names of
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
# What makes a workload bad, by w % 10. Numbers that are not here are good.
FLAWS = {
    1: "privileged",
    2: "root",
    3: "no-limits",
    4: "host",
    5: "registry",
    6: "capabilities",
    7: "writable",
    8: "escalation",
}


def namespace(workload: int) -> str:
    return "default" if workload % 40 == 39 else f"team-{workload % TEAMS:02d}"


def name(workload: int) -> str:
    return f"app-{workload:05d}"


def template_hash(workload: int) -> str:
    return _random_name(workload + 7_000_001, 9)


def pods(count: int, replicas_per_workload: int = 10) -> Iterator[Object]:
    """Pod dicts, without `kind` and `apiVersion` like the items of a list."""
    for index in range(count):
        yield json.loads(pod_json(index, replicas_per_workload))


def pods_json(start: int, stop: int, replicas_per_workload: int = 10) -> bytes:
    """Pods as JSON objects joined by commas, made fast: a page source for `ApiServer.serve`."""
    return ",".join(pod_json(index, replicas_per_workload) for index in range(start, stop)).encode()


def pod_json(index: int, replicas_per_workload: int = 10) -> str:
    workload = index // replicas_per_workload
    node = (index * 7) % max(3, min(200, index + 1))
    return (
        _pod_text(workload)
        .replace("~SUFFIX~", _random_name(index, 5))
        .replace("~TOKEN~", _random_name(index + 500_000, 5))
        .replace("~UID~", _uid(0xB0D, index))
        .replace("~NODE~", node_name(node))
        .replace("~NODEIP~", f"10.240.{node // 250}.{node % 250 + 4}")
        .replace("~IP~", f"10.{index // 62500 % 250 + 1}.{index // 250 % 250}.{index % 250 + 2}")
        .replace("~RV~", str(100_000 + index))
        .replace("~CID~", f"{(index * 2654435761) % (1 << 62):064x}")
    )


def deployments(count: int) -> Iterator[Object]:
    for workload in range(count):
        labels = _labels(workload)
        yield {
            "kind": "Deployment",
            "apiVersion": "apps/v1",
            "metadata": {
                "name": name(workload),
                "namespace": namespace(workload),
                "uid": _uid(0xDE9, workload),
                "resourceVersion": str(50_000 + workload),
                "generation": 1,
                "creationTimestamp": _TIME,
                "labels": labels,
                "annotations": {"deployment.kubernetes.io/revision": "1"},
                "managedFields": _managed_fields("helm", "apps/v1", 2),
            },
            "spec": {
                "replicas": 10,
                "selector": {"matchLabels": {"app": name(workload)}},
                "template": {
                    "metadata": {"labels": labels, "annotations": _annotations(workload)},
                    "spec": _pod_spec(workload),
                },
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
                "revisionHistoryLimit": 10,
                "progressDeadlineSeconds": 600,
            },
            "status": {
                "observedGeneration": 1,
                "replicas": 10,
                "updatedReplicas": 10,
                "readyReplicas": 10,
                "availableReplicas": 10,
            },
        }


def replica_sets(count: int) -> Iterator[Object]:
    for workload, owner in enumerate(deployments(count)):
        reference = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": name(workload),
            "uid": owner["metadata"]["uid"],
        }
        metadata = owner["metadata"] | {
            "name": _replica_set(workload),
            "uid": _uid(0x125, workload),
            "labels": _labels(workload) | {"pod-template-hash": template_hash(workload)},
            "ownerReferences": [reference | {"controller": True, "blockOwnerDeletion": True}],
        }
        spec = {key: owner["spec"][key] for key in ("replicas", "selector", "template")}
        yield {
            "kind": "ReplicaSet",
            "apiVersion": "apps/v1",
            "metadata": metadata,
            "spec": spec,
            "status": {"replicas": 10},
        }


def namespaces() -> Iterator[Object]:
    for number, text in enumerate(_namespace_names()):
        uid = CLUSTER_UID if text == "kube-system" else _uid(0x45, number)
        labels = {"kubernetes.io/metadata.name": text}
        yield {
            "kind": "Namespace",
            "apiVersion": "v1",
            "metadata": {
                "name": text,
                "uid": uid,
                "resourceVersion": str(number + 5),
                "creationTimestamp": _TIME,
                "labels": labels,
            },
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        }


def service_accounts(count: int = 0) -> Iterator[Object]:
    """`default` in every namespace and one for each of `count` workloads; good workloads mount no token."""
    for number, text in enumerate(_namespace_names()):
        yield _account(text, "default", {}, number)
    for workload in range(count):
        extra = {} if workload % 10 in FLAWS else {"automountServiceAccountToken": False}
        yield _account(namespace(workload), name(workload), extra, 1000 + workload)


def services(count: int) -> Iterator[Object]:
    yield _service(
        "default",
        "kubernetes",
        {},
        "ClusterIP",
        {"name": "https", "protocol": "TCP", "port": 443, "targetPort": 6443},
        0,
    )
    for workload in range(count):
        kind = {3: "LoadBalancer", 4: "NodePort"}.get(workload % 10, "ClusterIP")
        port = {"name": "http", "protocol": "TCP", "port": (443, 80, 8080)[workload % 3], "targetPort": "http"}
        port |= {} if kind == "ClusterIP" else {"nodePort": 30000 + workload % 2700}
        yield _service(namespace(workload), name(workload), {"app": name(workload)}, kind, port, workload + 1)


def nodes(count: int = 3) -> Iterator[Object]:
    for number in range(count):
        labels = {
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": node_name(number),
        }
        yield {
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": {
                "name": node_name(number),
                "uid": _uid(0x40DE, number),
                "creationTimestamp": _TIME,
                "labels": labels,
            },
            "spec": {"providerID": f"azure:///subscriptions/0/virtualMachines/{number}"},
            "status": {"nodeInfo": {"kubeletVersion": "v1.34.2", "operatingSystem": "linux", "architecture": "amd64"}},
        }


def populate(server: ApiServer, pod_count: int, replicas_per_workload: int = 10) -> None:
    """Fill an ApiServer: every kind above; pods come from the generator, so that memory does not grow with them."""
    workloads = -(-pod_count // replicas_per_workload)
    server.add(*namespaces(), *nodes(min(200, max(3, pod_count))), *service_accounts(workloads), *services(workloads))
    server.add(*deployments(workloads), *replica_sets(workloads))
    server.serve("pods", pod_count, _source(range(pod_count), replicas_per_workload))
    for text in _namespace_names():
        own = [i for i in range(pod_count) if namespace(i // replicas_per_workload) == text]
        server.serve("pods", len(own), _source(own, replicas_per_workload), namespace=text)


def _source(indexes: Sequence[int], replicas: int) -> Callable[[int, int], bytes]:
    return lambda start, stop: ",".join(pod_json(index, replicas) for index in indexes[start:stop]).encode()


def node_name(number: int) -> str:
    return f"aks-system-31871943-vmss{number:06x}"


def _namespace_names() -> list[str]:
    return ["default", "kube-node-lease", "kube-public", "kube-system", *(f"team-{n:02d}" for n in range(TEAMS))]


def _random_name(index: int, length: int) -> str:
    """Looks random, and no two indexes share one (the factor is coprime with 27)."""
    value = index * 2654435761 % 27**length
    letters = []
    for _ in range(length):
        value, digit = divmod(value, 27)
        letters.append(_SAFE[digit])
    return "".join(letters)


def _uid(space: int, index: int) -> str:
    return f"{space:08x}-{index % 0xFFFF:04x}-4{index % 0xFFF:03x}-8a5c-{index * 2654435761 % (1 << 48):012x}"


def _replica_set(workload: int) -> str:
    return f"{name(workload)}-{template_hash(workload)}"


def _labels(workload: int) -> dict[str, str]:
    app = name(workload)
    return {
        "app": app,
        "app.kubernetes.io/name": app,
        "app.kubernetes.io/instance": "prod",
        "team": f"team-{workload % TEAMS:02d}",
    }


def _annotations(workload: int) -> dict[str, str]:
    return {"prometheus.io/scrape": "true", "checksum/config": f"{workload * 2654435761:064x}"}


def _account(where: str, text: str, extra: Object, number: int) -> Object:
    metadata = {"name": text, "namespace": where, "uid": _uid(0x5A, number), "creationTimestamp": _TIME}
    return {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": metadata} | extra


def _service(where: str, text: str, selector: Object, kind: str, port: Object, number: int) -> Object:
    address = f"10.0.{number // 250 % 250}.{number % 250 + 1}"
    spec: Object = {
        "ports": [port],
        "clusterIP": address,
        "clusterIPs": [address],
        "type": kind,
        "sessionAffinity": "None",
    }
    spec |= {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None"}
    spec |= {"selector": selector} if selector else {}
    metadata = {
        "name": text,
        "namespace": where,
        "uid": _uid(0x5E4, number),
        "creationTimestamp": _TIME,
        "labels": selector,
    }
    return {"kind": "Service", "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": {"loadBalancer": {}}}


def _managed_fields(manager: str, version: str, containers: int) -> list[Object]:
    leaf: Object = {}
    fields = {
        f"f:{key}": leaf
        for key in ("image", "imagePullPolicy", "name", "terminationMessagePath", "terminationMessagePolicy")
    }
    fields |= {"f:resources": {".": leaf, "f:limits": {".": leaf, "f:cpu": leaf, "f:memory": leaf}}}
    spec = {f'k:{{"name":"{_CONTAINER_NAMES[n]}"}}': {".": leaf, **fields} for n in range(containers)}
    value = {
        "f:metadata": {"f:labels": {".": leaf, "f:app": leaf}},
        "f:spec": {"f:containers": spec, "f:restartPolicy": leaf},
    }
    entry = {"manager": manager, "operation": "Update", "apiVersion": version, "time": _TIME, "fieldsType": "FieldsV1"}
    return [entry | {"fieldsV1": value}]


_CONTAINER_NAMES = ("web", "sidecar", "metrics")


def _container_count(workload: int) -> int:
    return 3 if workload % 10 == 0 else 2


def _image(workload: int, container: str) -> str:
    registry = "docker.io/randomuser" if workload % 10 == 5 else f"contoso.azurecr.io/team-{workload % TEAMS:02d}"
    return f"{registry}/{container}:{workload % 9}.{workload % 13}.1"


def _security_context(flaw: str | None) -> Object:
    good: Object = {
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
    }
    bad: dict[str | None, Object] = {
        "privileged": {"privileged": True, "allowPrivilegeEscalation": True, "readOnlyRootFilesystem": True},
        "root": good | {"runAsNonRoot": False, "runAsUser": 0},
        "capabilities": good | {"capabilities": {"add": ["SYS_ADMIN", "NET_ADMIN"]}},
        "writable": good | {"readOnlyRootFilesystem": False},
        "escalation": good | {"allowPrivilegeEscalation": True},
    }
    return bad.get(flaw, good)


def _container(workload: int, text: str, main: bool) -> Object:
    flaw = FLAWS.get(workload % 10) if main else None  # the sidecars are always good
    limits: Object = {"requests": {"cpu": "100m", "memory": "128Mi"}}
    if flaw != "no-limits":
        limits["limits"] = {"cpu": "500m", "memory": "256Mi"}
    env: list[Object] = [{"name": f"SETTING_{n}", "value": f"value-{n}"} for n in range(3)]
    env.append({"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}})
    probe = {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10}
    ports: list[Object] = [{"name": "http", "containerPort": 8080, "protocol": "TCP"}] if main else []
    if main and flaw == "host":
        ports[0]["hostPort"] = 8080
    return {
        "name": text,
        "image": _image(workload, text),
        "command": ["/bin/app", "--serve"],
        "args": [f"--shard={workload % 64}", "--log-level=info"],
        **({"ports": ports} if ports else {}),
        "env": env,
        "resources": limits,
        "volumeMounts": [{"name": "config", "mountPath": "/etc/app", "readOnly": True}],
        "livenessProbe": probe | {"successThreshold": 1, "failureThreshold": 3},
        **({"readinessProbe": probe | {"successThreshold": 1, "failureThreshold": 3}} if main else {}),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": _security_context(flaw),
    }


def _pod_spec(workload: int) -> Object:
    """As in the Deployment's template: what the author wrote, with the API server's defaults."""
    host = FLAWS.get(workload % 10) == "host"
    volumes: list[Object] = [{"name": "config", "configMap": {"name": "settings", "defaultMode": 420}}]
    if host:
        volumes.append({"name": "run", "hostPath": {"path": "/var/run", "type": ""}})
    text = name(workload)
    return {
        "volumes": volumes,
        "containers": [_container(workload, _CONTAINER_NAMES[n], n == 0) for n in range(_container_count(workload))],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": text,
        "serviceAccount": text,
        **({"hostNetwork": True, "hostPID": True} if host else {}),
        "securityContext": {"fsGroup": 2000, "seccompProfile": {"type": "RuntimeDefault"}},
        "schedulerName": "default-scheduler",
    }


def _token_volume() -> Object:
    sources: list[Object] = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]
    return {"name": "kube-api-access-~TOKEN~", "projected": {"sources": sources, "defaultMode": 420}}


def _admitted(spec: Object, workload: int) -> Object:
    """What admission and the scheduler add to a pod: the token volume, the node, tolerations, priority."""
    if workload % 10 in FLAWS:  # the ServiceAccounts of the others say automountServiceAccountToken: false
        spec["volumes"].append(_token_volume())
        for container in spec["containers"]:
            container["volumeMounts"].append(
                {"name": "kube-api-access-~TOKEN~", "readOnly": True, "mountPath": _TOKEN_PATH}
            )
    absent = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    return spec | {
        "nodeName": "~NODE~",
        "tolerations": [{"key": f"node.kubernetes.io/{key}"} | absent for key in ("not-ready", "unreachable")],
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    }


def _container_status(workload: int, text: str) -> Object:
    digest = f"{(workload + 1) * 2654435761:064x}"
    image = _image(workload, text)
    return {
        "name": text,
        "state": {"running": {"startedAt": _TIME}},
        "lastState": {},
        "ready": True,
        "restartCount": 0,
        "image": image,
        "imageID": f"{image.rsplit(':', 1)[0]}@sha256:{digest}",
        "containerID": "containerd://~CID~",
        "started": True,
    }


def _pod_status(workload: int) -> Object:
    types = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "phase": "Running",
        "conditions": [
            {"type": t, "status": "True", "lastProbeTime": None, "lastTransitionTime": _TIME} for t in types
        ],
        "hostIP": "~NODEIP~",
        "hostIPs": [{"ip": "~NODEIP~"}],
        "podIP": "~IP~",
        "podIPs": [{"ip": "~IP~"}],
        "startTime": _TIME,
        "containerStatuses": [
            _container_status(workload, text) for text in _CONTAINER_NAMES[: _container_count(workload)]
        ],
        "qosClass": "Burstable",
    }


@lru_cache(maxsize=64)
def _pod_text(workload: int) -> str:
    """The JSON that all pods of a workload share, with marks where they differ."""
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": _replica_set(workload),
        "uid": _uid(0x125, workload),
    }
    metadata = {
        "name": f"{_replica_set(workload)}-~SUFFIX~",
        "generateName": f"{_replica_set(workload)}-",
        "namespace": namespace(workload),
        "uid": "~UID~",
        "resourceVersion": "~RV~",
        "generation": 1,
        "creationTimestamp": _TIME,
        "labels": _labels(workload) | {"pod-template-hash": template_hash(workload)},
        "annotations": _annotations(workload),
        "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
        "managedFields": _managed_fields("kube-controller-manager", "v1", _container_count(workload))
        + _managed_fields("kubelet", "v1", 0),
    }
    pod = {"metadata": metadata, "spec": _admitted(_pod_spec(workload), workload), "status": _pod_status(workload)}
    return json.dumps(pod, separators=(",", ":"))
