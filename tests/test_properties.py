"""Whatever stands in a field: no crash, no pass by a value of the wrong type, and null is the same as nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from support import FIXTURES, Object, evaluate, inventory, merged, objects, pod, settings

from scanner import kube, workloads
from scanner.model import Finding

PARAMETERS = {
    "k8s-trusted-registries": {"allowed_images_regex": r"^[^/]+\.azurecr\.io/.+$"},
    "k8s-service-allowed-ports": {"allowed_ports": ["80"]},
    "k8s-hostpath-volumes": {"allowed_host_paths": [{"path_prefix": "/var/log", "read_only": True}]},
    "k8s-least-privileged-capabilities": {"required_drop_capabilities": ["ALL"]},
    "k8s-container-limits": {"apply_limit_ranges": True},
}
EVERYTHING = settings(parameters=PARAMETERS)

GOOD_CONTAINER = """
name: a
image: acme.azurecr.io/x:1
ports: [{containerPort: 80, hostPort: 0}]
resources: {limits: {cpu: 100m, memory: 64Mi}, requests: {cpu: 10m}}
securityContext:
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  capabilities: {add: [], drop: [ALL]}
  appArmorProfile: {type: RuntimeDefault}
volumeMounts: [{name: logs, mountPath: /logs, readOnly: true}]
"""
BAD_CONTAINER = """
name: a
image: redis:latest
ports: [{containerPort: 9001, hostPort: 9001}]
resources: {limits: {cpu: "64", memory: 65Gi}}
securityContext:
  privileged: true
  allowPrivilegeEscalation: true
  readOnlyRootFilesystem: false
  runAsNonRoot: false
  runAsUser: 0
  runAsGroup: 0
  capabilities: {add: [SYS_ADMIN]}
  appArmorProfile: {type: Unconfined}
volumeMounts: [{name: logs, mountPath: /logs, readOnly: false}]
"""
GOOD_POD = """
automountServiceAccountToken: false
serviceAccountName: sa
hostNetwork: false
hostPID: false
hostIPC: false
hostUsers: true
nodeSelector: {kubernetes.io/os: linux}
os: {name: linux}
securityContext: {runAsNonRoot: true, fsGroup: 2000, supplementalGroups: [3000]}
volumes: [{name: logs, hostPath: {path: /var/log, type: Directory}}]
"""
BAD_POD = """
automountServiceAccountToken: true
serviceAccountName: sa
hostNetwork: true
hostPID: true
hostIPC: true
securityContext: {runAsUser: 0, runAsGroup: 0, fsGroup: 0, supplementalGroups: [0]}
volumes: [{name: logs, hostPath: {path: /etc}}]
"""
OTHERS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: good
  namespace: n
  annotations: {nginx.ingress.kubernetes.io/ssl-redirect: "true"}
spec: {ingressClassName: nginx, tls: [{hosts: [a.x], secretName: s}], rules: [{host: a.x}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: bad
  namespace: n
  annotations:
    nginx.ingress.kubernetes.io/ssl-redirect: "false"
    kubernetes.io/ingress.class: nginx
spec: {tls: [{hosts: [a.x]}], rules: [{host: a.x}, {}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: alb
  namespace: n
  annotations:
    alb.ingress.kubernetes.io/listen-ports: '[{"HTTP": 80}, {"HTTPS": 443}]'
    alb.ingress.kubernetes.io/certificate-arn: arn
spec: {ingressClassName: alb}
---
apiVersion: v1
kind: Service
metadata: {name: bad, namespace: default, labels: {a: b}}
spec: {type: LoadBalancer, ports: [{port: 80}, {port: 22}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: sa, namespace: n}
automountServiceAccountToken: false
---
apiVersion: v1
kind: LimitRange
metadata: {name: lr, namespace: n}
spec: {limits: [{type: Container, default: {cpu: 100m, memory: 64Mi}}]}
"""
# Depends on the ServiceAccount and the LimitRange.
DEPENDENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: dependent, namespace: n}
spec: {template: {spec: {serviceAccountName: sa, containers: [{name: a, image: acme.azurecr.io/x:1}]}}}
"""

Path = tuple[str | int, ...]
Failing = set[tuple[str, str, str, str | None]]


def workload(kind: str, name: str, container: str, spec: str) -> Object:
    body = {"containers": objects(container), "initContainers": objects(container.replace("name: a", "name: i", 1))}
    notes = {"container.apparmor.security.beta.kubernetes.io/i": "unconfined"} if name == "bad" else {}
    base = merged(pod(name=name), {"metadata": {"annotations": notes, "labels": {"a": "b"}}})
    template = {"metadata": base["metadata"], "spec": {**objects(spec)[0], **body}}
    if kind == "Pod":
        return {"apiVersion": "v1", "kind": kind, **template}
    head = {"apiVersion": "batch/v1" if kind == "CronJob" else "apps/v1", "kind": kind, "metadata": base["metadata"]}
    nested = {"jobTemplate": {"spec": {"template": template}}} if kind == "CronJob" else {"template": template}
    return {**head, "spec": nested}


def bases() -> list[list[Object]]:
    """Each list is judged together; its first object is the one that is changed."""
    pods = [
        [workload(kind, name, container, spec)]
        for kind in ("Pod", "Deployment", "CronJob")
        for name, container, spec in (("good", GOOD_CONTAINER, GOOD_POD), ("bad", BAD_CONTAINER, BAD_POD))
    ]
    seeds = [
        [o] for n in ("healthy", "unhealthy") for o in objects((FIXTURES / "seeds" / f"{n}.yaml").read_text("utf-8"))
    ]
    return [*pods, *seeds, *([o, *objects(DEPENDENT)] for o in objects(OTHERS))]


BASES = bases()


def paths(value: Any, here: Path = ()) -> Iterator[Path]:
    """Every place inside an object."""
    if here:
        yield here
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*here, key))


PLACES = [(i, p) for i, base in enumerate(BASES) for p in paths(base[0]) if p not in (("apiVersion",), ("kind",))]


def at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def changed(base: list[Object], path: Path, new: Any) -> list[Object]:
    first = copy.deepcopy(base[0])
    at(first, path[:-1])[path[-1]] = new
    return [first, *base[1:]]


def without(base: list[Object], path: Path) -> list[Object]:
    first = copy.deepcopy(base[0])
    del at(first, path[:-1])[path[-1]]
    return [first, *base[1:]]


def judged(items: list[Object]) -> list[Finding]:
    findings = evaluate(inventory(items), EVERYTHING)
    assert "check_crashed" not in {f.reason for f in findings}
    return findings


def of(findings: list[Finding], status: str) -> Failing:
    return {(f.check, f.resource.kind, f.resource.name, f.resource.container) for f in findings if f.status == status}


@cache
def wrong(index: int, path: Path) -> Failing:
    """What fails as it stands, or fails once the field is gone: nothing but a valid value may turn it into a pass."""
    base = BASES[index]
    return of(judged(base), "fail") | of(judged(without(base, path)), "fail")


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
telling = st.sampled_from(["", "true", "false", "null", "windows", "0", "1000", "*", "runtime/default", "kubernetes"])
anything = st.recursive(
    scalars | telling,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | telling, inner, max_size=3),
    max_leaves=6,
)
QUICK = examples(max_examples=400, deadline=None, database=None, derandomize=True)


def same_type(path: Path, old: Any, new: Any) -> bool:
    """Whether Kubernetes would take `new` where `old` stood, as far as types tell."""
    if "limits" in path[-3:-1] or "default" in path[-2:-1]:  # quantities are texts or numbers
        return isinstance(new, str | int | float) and not isinstance(new, bool)
    return type(new) is type(old)


@QUICK
@given(st.sampled_from(PLACES), anything)
def test_no_value_passes_by_being_of_the_wrong_type(place: tuple[int, Path], new: Any) -> None:
    index, path = place
    base = BASES[index]
    findings = judged(changed(base, path, new))
    if new is not None and not same_type(path, at(base[0], path), new):
        assert not of(findings, "pass") & wrong(index, path)
        # Nothing is lost either: what failed still fails, or something is reported that could not be understood.
        assert of(judged(base), "fail") <= of(findings, "fail") or of(findings, "error")


NULLABLE = [(i, p) for i, p in PLACES if isinstance(p[-1], str)]


@pytest.mark.parametrize("index", range(len(BASES)))
def test_null_equals_absent(index: int) -> None:
    for path in (p for i, p in NULLABLE if i == index):
        nothing, null = (judged(f(BASES[index], path)) for f in (without, lambda b, p: changed(b, p, None)))
        for status in ("pass", "fail", "not_applicable", "error", "unknown"):
            assert of(null, status) == of(nothing, status), path


@QUICK
@given(st.sampled_from(PLACES), st.lists(st.tuples(st.sampled_from(PLACES), anything), max_size=3), anything)
def test_several_changes_do_not_crash(
    place: tuple[int, Path], more: list[tuple[tuple[int, Path], Any]], new: Any
) -> None:
    items = changed(BASES[place[0]], place[1], new)
    for (index, path), other in more:
        items += changed(BASES[index], path, other)
    judged(items)


# ---------------------------------------------------------------------------------------------------------------------
# Bytes


@pytest.mark.parametrize("plural", kube.KINDS)
@given(
    st.binary(max_size=40)
    | st.sampled_from([b"{}", b"[]", b"null", b"5", b'{"metadata":5}', b'{"spec":null}', b'"\xff"'])
)
@examples(max_examples=25, deadline=None, database=None, derandomize=True)
def test_bytes_are_understood_or_reported(plural: str, data: bytes) -> None:
    fold = workloads.Fold(frozenset(kube.KINDS))
    fold.add(kube.KINDS[plural], data)
    evaluate(fold.finish(), EVERYTHING)


@pytest.mark.parametrize("depth", [100, 10_000])
@pytest.mark.parametrize("opened", [b"[", b'{"a":'])
@pytest.mark.parametrize("index", range(len(BASES)))
def test_nesting_is_an_error_of_the_object(index: int, opened: bytes, depth: int) -> None:
    closed = {b"[": b"]", b'{"a":': b"}"}[opened]
    nested = opened * depth + b"1" + closed * depth
    base = BASES[index]
    for path in (p for i, p in PLACES if i == index):
        data = msgspec.json.encode(changed(base, path, "@@@")[0]).replace(b'"@@@"', nested)
        fold = workloads.Fold(frozenset(kube.KINDS))
        kind = kube.BY_NAME[base[0]["kind"]]
        fold.add(kind, data)
        judged_after = evaluate(fold.finish(), EVERYTHING)
        assert "check_crashed" not in {f.reason for f in judged_after}
