"""Attribution to roots, folding into shapes, scope parameters, exemptions, and what could not be judged."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import msgspec
import pytest
from support import (
    TODAY,
    Object,
    container,
    deployment,
    evaluate,
    gap,
    inventory,
    judge,
    merged,
    owned,
    pod,
    secured,
    settings,
    statuses,
)

from scanner import config
from scanner.check import Check, check
from scanner.exemptions import Exemption, Exemptions
from scanner.kube import Container
from scanner.model import PASS, Finding, Severity, Status, Verdict
from scanner.summary import Tally

PRIVILEGED = "k8s-privileged-container"
HOST_NS = "k8s-host-namespaces"
HOST_PATH = "k8s-hostpath-volumes"
IMAGES = "k8s-trusted-registries"
NAMESPACE = "k8s-default-namespace"
LIMITS = "k8s-container-limits"
PORTS = "k8s-service-allowed-ports"
BAD = secured(privileged=True)
GOOD = secured(privileged=False)


def subjects(findings: list[Finding]) -> list[str]:
    return [
        f"{f.resource.kind}/{f.resource.name}" + (f"#{f.resource.container}" if f.resource.container else "")
        for f in findings
    ]


def of_deployment(item: Object, name: str = "web", revision: str = "5d4f8c7b9") -> Object:
    return owned(item, "ReplicaSet", f"{name}-{revision}", labels={"pod-template-hash": revision})


# ---------------------------------------------------------------------------------------------------------------------
# Attribution


def static_pod(node: str) -> Object:
    item = pod(BAD, name=f"kube-apiserver-{node}", annotations={"kubernetes.io/config.mirror": "x"}, nodeName=node)
    return merged(
        item,
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "controller": True}]}},
    )


def mirror_without_owner(node: str) -> Object:
    return pod(BAD, name=f"etcd-{node}", annotations={"kubernetes.io/config.mirror": "x"}, nodeName=node)


def controlled(kind: str, name: str, owner: tuple[str, str, str]) -> Object:
    return owned(deployment(GOOD, name=name, kind=kind), *owner)


CRON = ("CronJob", "nightly", "batch/v1")
ROLLOUT = ("Rollout", "canary", "argoproj.io/v1alpha1")
# fmt: off
ATTRIBUTION: list[tuple[str, list[Object], str]] = [
    ("a pod alone", [pod(BAD)], "Pod/p"),
    ("an owner that does not control", [merged(pod(BAD), {"metadata": {"ownerReferences": [{"kind": "Job",
     "name": "j"}]}})], "Pod/p"),
    ("Deployment by label", [of_deployment(pod(BAD))], "Deployment/web"),
    ("Deployment whose name ends like a hash", [of_deployment(pod(BAD), name="web-5d4f8c7b9")],
     "Deployment/web-5d4f8c7b9"),
    ("ReplicaSet without the label", [owned(pod(BAD), "ReplicaSet", "web-5d4f8c7b9")], "ReplicaSet/web-5d4f8c7b9"),
    ("ReplicaSet with another hash", [owned(pod(BAD), "ReplicaSet", "web-1", labels={"pod-template-hash": "2"})],
     "ReplicaSet/web-1"),
    ("ReplicaSet with an owner in view", [owned(pod(BAD), "ReplicaSet", "web-1"),
     controlled("ReplicaSet", "web-1", ("Deployment", "web", "apps/v1"))],
     "Deployment/web"),
    ("Argo Rollout by label", [owned(pod(BAD), "ReplicaSet", "canary-77",
     labels={"rollouts-pod-template-hash": "77"})], "Rollout/canary"),
    ("Argo Rollout by owner", [owned(pod(BAD), "ReplicaSet", "canary-77"),
     controlled("ReplicaSet", "canary-77", ROLLOUT)], "Rollout/canary"),
    ("StatefulSet", [owned(pod(BAD), "StatefulSet", "db")], "StatefulSet/db"),
    ("DaemonSet of an old group", [owned(pod(BAD), "DaemonSet", "agent", "extensions/v1beta1")], "DaemonSet/agent"),
    ("Job", [owned(pod(BAD), "Job", "import", "batch/v1")], "Job/import"),
    ("CronJob with its Job in view", [owned(pod(BAD), "Job", "nightly-29012345", "batch/v1"),
     controlled("Job", "nightly-29012345", CRON)],
     "CronJob/nightly"),
    ("CronJob with Jobs out of view", [owned(pod(BAD), "Job", "nightly-29012345", "batch/v1")], "CronJob/nightly"),
    ("Job in view that no CronJob owns", [owned(pod(BAD), "Job", "report-20260901", "batch/v1"),
     deployment(GOOD, name="report-20260901", kind="Job")],
     "Job/report-20260901"),
    ("custom owner", [owned(pod(BAD), "SparkApplication", "etl", "sparkoperator.k8s.io/v1beta2")],
     "SparkApplication/etl"),
    ("ReplicationController of a DeploymentConfig",
     [owned(pod(BAD), "ReplicationController", "app-3", "v1"),
      controlled("ReplicationController", "app-3", ("DeploymentConfig", "app", "apps.openshift.io/v1"))],
       "DeploymentConfig/app"),
    ("static pod", [static_pod("node-1")], "Pod/kube-apiserver"),
    ("static pod without an owner", [mirror_without_owner("node-1")], "Pod/etcd"),
    ("generated name", [merged(pod(BAD), {"metadata": {"generateName": "debug-", "name": "debug-x7k2p"}})],
     "Pod/debug-*"),
    ("generated name only", [merged(pod(BAD), {"metadata": {"generateName": "debug-", "name": None}})], "Pod/debug-*"),
    ("no name at all", [merged(pod(BAD), {"metadata": {"name": None}})], "Pod/~unreadable"),
]
# fmt: on


@pytest.mark.parametrize(("items", "root"), [c[1:] for c in ATTRIBUTION], ids=[c[0] for c in ATTRIBUTION])
def test_root(items: list[Object], root: str) -> None:
    """The order of arrival does not matter."""
    for order in (items, items[::-1]):
        failing = [f for f in judge(order, PRIVILEGED, live=True) if f.status == "fail"]
        assert subjects(failing) == [f"{root}#a"]


def test_replicas_of_a_static_pod_on_every_node_are_one_finding() -> None:
    (finding,) = judge([static_pod(f"node-{i}") for i in range(3)], PRIVILEGED, live=True)
    assert finding.occurrences == 3


@pytest.mark.parametrize("kind", ["ReplicaSet", "Job"])
def test_owners_that_own_each_other_end(kind: str) -> None:
    api = "batch/v1" if kind == "Job" else "apps/v1"
    circle = [
        owned(deployment(BAD, name="x", kind=kind), kind, "y", api),
        owned(deployment(BAD, name="y", kind=kind), kind, "x", api),
        owned(deployment(BAD, name="z", kind=kind), kind, "z", api),
    ]
    assert statuses(judge(circle, PRIVILEGED)) == {"fail"}


@pytest.mark.parametrize(("replicas", "answer"), [(0, "pass"), (2, "fail")])
def test_revision_of_a_deployment_counts_while_it_is_scaled_up(replicas: int, answer: str) -> None:
    revision = owned(deployment(BAD, name="web-1", kind="ReplicaSet"), "Deployment", "web")
    revision["spec"]["replicas"] = replicas
    (finding,) = judge([revision, deployment(GOOD, name="web")], PRIVILEGED)
    assert (finding.status, finding.resource.kind, finding.resource.name) == (answer, "Deployment", "web")


def test_job_counts_beside_its_cron_job() -> None:
    run = owned(deployment(BAD, name="web-1", kind="Job"), "CronJob", "web")
    run["spec"]["replicas"] = 0  # a field that Jobs do not have
    run["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}  # in a file no more than a claim
    assert [f.status for f in judge([run], PRIVILEGED)] == ["fail"]


def test_replica_set_of_a_deployment_that_is_not_in_the_input_is_judged() -> None:
    lone = owned(deployment(BAD, name="web-1", kind="ReplicaSet"), "Deployment", "web")
    assert [f.status for f in judge(lone, PRIVILEGED)] == ["fail"]


def test_replica_set_scaled_to_zero_with_an_owner_is_a_former_revision() -> None:
    former = owned(deployment(BAD, name="canary-1", kind="ReplicaSet"), *ROLLOUT)
    current = owned(deployment(GOOD, name="canary-2", kind="ReplicaSet"), *ROLLOUT)
    assert statuses(judge([merged(former, {"spec": {"replicas": 0}}), current], PRIVILEGED)) == {"pass"}


def test_replica_set_without_an_owner_is_judged() -> None:
    assert statuses(judge(merged(deployment(BAD, kind="ReplicaSet"), {"spec": {"replicas": 0}}), PRIVILEGED)) == {
        "fail"
    }


# ---------------------------------------------------------------------------------------------------------------------
# Shapes


def token_pod(index: int, *containers: Object, suffix: str = "x2x2x") -> Object:
    """A replica as the API server shows it: its own node, its own token volume."""
    mount = {"name": f"kube-api-access-{suffix}", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    mounted = [merged(c, {"volumeMounts": [mount]}) for c in containers]
    volume = {
        "name": f"kube-api-access-{suffix}",
        "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]},
    }
    return pod(*mounted, name=f"web-{index:03}", nodeName=f"node-{index}", volumes=[volume])


def test_a_hundred_replicas_are_one_shape() -> None:
    pods = [of_deployment(token_pod(i, BAD, suffix=f"a{i:04}")) for i in range(100)]
    (root,) = inventory(pods, live=True).roots
    assert [s.pods for s in root.shapes] == [100]
    (finding,) = judge(pods[::-1], PRIVILEGED, live=True)
    assert finding.occurrences == 100
    assert finding.pods == tuple(f"web-{i:03}" for i in range(10))


def test_one_injected_sidecar_among_a_hundred_pods() -> None:
    pods = [of_deployment(token_pod(i, GOOD)) for i in range(99)]
    injected = of_deployment(token_pod(99, GOOD, container("mesh", securityContext={"privileged": True})))
    findings = judge([*pods, injected], PRIVILEGED, live=True)
    assert {(f.resource.container, f.status.value, f.occurrences, f.pods[:1]) for f in findings} == {
        ("a", "pass", 100, ("web-000",)),
        ("mesh", "fail", 1, ("web-099",)),
    }


def test_a_rollout_in_progress_gives_one_finding_with_the_failing_pods() -> None:
    old = [of_deployment(pod(BAD, name=f"old-{i}"), revision="1111") for i in range(3)]
    new = [of_deployment(pod(GOOD, name=f"new-{i}"), revision="2222") for i in range(5)]
    (finding,) = judge([*old, *new], PRIVILEGED, live=True)
    assert (finding.status, finding.occurrences, finding.pods) == ("fail", 3, ("old-0", "old-1", "old-2"))


def test_worst_severity_of_the_failing_shapes_wins() -> None:
    """A shape whose answer is only information does not soften another's."""
    by_hand = {"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {}}]}}]}
    mount = container(volumeMounts=[{"name": "t", "mountPath": "/t"}])
    pods = [
        owned(pod(name="x-0", automountServiceAccountToken=True), "StatefulSet", "x"),
        owned(pod(mount, name="x-1", automountServiceAccountToken=False, **by_hand), "StatefulSet", "x"),
    ]
    (finding,) = judge(pods, "k8s-automount-api-credentials", params={"flag_manual_tokens": True}, live=True)
    assert (finding.severity, finding.reason, finding.occurrences) == ("high", "", 2)


@pytest.mark.parametrize(("running", "template", "status"), [(GOOD, BAD, "pass"), (BAD, GOOD, "fail")])
def test_running_pods_outrank_the_template(running: Object, template: Object, status: str) -> None:
    items = [of_deployment(pod(running)), deployment(template, name="web")]
    for order in (items, items[::-1]):
        assert statuses(judge(order, PRIVILEGED, live=True)) == {status}


def test_a_pod_manifest_does_not_outrank_the_template() -> None:
    """What does not run proves nothing about what the template will start."""
    assert statuses(judge([owned(pod(GOOD), "Deployment", "web"), deployment(BAD, name="web")], PRIVILEGED)) == {"fail"}


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_completed_pods_leave_the_template_to_be_judged(phase: str) -> None:
    done = {**owned(pod(GOOD), "Job", "import", "batch/v1"), "status": {"phase": phase}}
    items = [done, deployment(BAD, name="import", kind="Job")]
    (finding,) = judge(items, PRIVILEGED, live=True)
    assert (finding.status, finding.pods) == ("fail", ())
    assert inventory(done, live=True).counts.skipped == 1


def test_debug_containers_share_one_subject() -> None:
    debug = [container(f"debugger-{i}", securityContext={"privileged": i == 1}) for i in range(3)]
    findings = judge(pod(GOOD, ephemeralContainers=debug), PRIVILEGED, live=True)
    assert {(f.resource.container, f.status.value) for f in findings} == {("a", "pass"), ("~ephemeral", "fail")}


def test_containers_of_one_name_are_one_subject() -> None:
    findings = judge(pod(GOOD, BAD, secured(privileged=True)), PRIVILEGED)
    assert [(f.status.value, [e.path for e in f.evidence]) for f in findings] == [
        ("fail", ["spec.containers[1].securityContext.privileged", "spec.containers[2].securityContext.privileged"])
    ]


@pytest.mark.parametrize("order", [(GOOD, BAD), (BAD, GOOD)])
def test_duplicate_workloads_are_one_finding(order: tuple[Object, Object]) -> None:
    (finding,) = judge([deployment(c) for c in order], PRIVILEGED)
    assert finding.status == "fail"
    assert finding.resource.source
    assert finding.resource.source.document == (order.index(BAD) + 1)


def test_duplicate_services_are_one_finding() -> None:
    items = [service(80), service(81)]
    findings = judge(items, PORTS, params={"allowed_ports": ["80"]})
    assert [f.status for f in findings] == ["fail"]


def service(*ports: int, name: str = "s", namespace: str = "n", **meta: Any) -> Object:
    head = {"name": name, "namespace": namespace, **meta}
    return {"apiVersion": "v1", "kind": "Service", "metadata": head, "spec": {"ports": [{"port": p} for p in ports]}}


# fmt: off
SAME_SHAPE: list[tuple[str, Object, Object, bool]] = [
    ("node", pod(BAD, nodeName="n1"), pod(BAD, nodeName="n2"), True),
    ("token volume", token_pod(1, BAD, suffix="aaaaa"), token_pod(1, BAD, suffix="bbbbb"), True),
    ("generated labels", merged(pod(BAD), {"metadata": {"labels": {"pod-template-hash": "1"}}}),
     merged(pod(BAD), {"metadata": {"labels": {"pod-template-hash": "2"}}}), True),
    ("status", {**pod(BAD), "status": {"phase": "Running", "podIP": "10.0.0.1"}},
     {**pod(BAD), "status": {"phase": "Pending"}}, True),
    ("labels", merged(pod(BAD), {"metadata": {"labels": {"a": "1"}}}),
     merged(pod(BAD), {"metadata": {"labels": {"a": "2"}}}), False),
    ("second volume of that kind", *[
        pod(container(volumeMounts=[{"name": used, "mountPath": "/host"}]), volumes=[
            {"name": "kube-api-access-aaaaa", "hostPath": {"path": "/tmp"}},
             {"name": "kube-api-access-bbbbb", "emptyDir": {}}])
        for used in ("kube-api-access-aaaaa", "kube-api-access-bbbbb")], False),
    ("host path behind the same volume name", *[
        pod(container(volumeMounts=[{"name": "kube-api-access-aaaaa", "mountPath": "/host"}]),
            volumes=[{"name": "kube-api-access-aaaaa", "hostPath": {"path": path}}]) for path in ("/tmp", "/etc")],
             False),
    ("AppArmor annotation", pod(BAD, annotations={"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}),
     pod(BAD), False),
    ("other annotation", pod(BAD, annotations={"x": "1"}), pod(BAD, annotations={"x": "2"}), True),
    ("null and absent", pod(BAD, hostPID=None, securityContext=None), pod(BAD), True),
    ("default and absent", pod(BAD, hostPID=False), pod(BAD), True),
    ("a running Windows node", pod(BAD, nodeName="win"), pod(BAD, nodeName="linux"), False),
]
# fmt: on
WINDOWS_NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "win", "labels": {"kubernetes.io/os": "windows"}},
}


@pytest.mark.parametrize(("one", "other", "same"), [c[1:] for c in SAME_SHAPE], ids=[c[0] for c in SAME_SHAPE])
def test_shapes_hold_what_checks_read_and_nothing_else(one: Object, other: Object, same: bool) -> None:
    pods = [owned(merged(one, {"metadata": {"name": "x-0"}}), "StatefulSet", "x"), owned(other, "StatefulSet", "x")]
    (root,) = inventory([WINDOWS_NODE, *pods], live=True).roots
    assert len(root.shapes) == (1 if same else 2)


def test_token_volume_named_elsewhere_in_the_spec() -> None:
    pods = [
        pod(container(image=f"r.io/kube-api-access-{x * 5}"), name=x, volumes=[{"name": f"kube-api-access-{x * 5}"}])
        for x in "ab"
    ]
    (root,) = inventory([owned(p, "StatefulSet", "x") for p in pods], live=True).roots
    assert len(root.shapes) == 2


# ---------------------------------------------------------------------------------------------------------------------
# Scope parameters


def excluded(findings: list[Finding]) -> bool:
    (finding,) = findings
    return (finding.status, finding.reason) == (Status.NOT_APPLICABLE, "excluded")


LABELLED = merged(deployment(BAD), {"spec": {"template": {"metadata": {"labels": {"tier": "web", "x": ""}}}}})
# fmt: off
SELECTORS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"matchLabels": {"tier": "web"}}, True),
    ({"matchLabels": {"tier": "db"}}, False),
    ({"matchLabels": {"tier": "web", "y": "1"}}, False),
    *[({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}, selected)
      for key, operator, values, selected in [
          ("tier", "In", ["db", "web"], True), ("tier", "In", ["db"], False), ("tier", "In", [], False),
           ("y", "In", ["1"], False),
          ("tier", "NotIn", ["db"], True), ("tier", "NotIn", ["web"], False), ("y", "NotIn", ["1"], True),
           ("tier", "NotIn", [], True),
          ("tier", "Exists", [], True), ("x", "Exists", [], True), ("y", "Exists", [], False),
          ("tier", "DoesNotExist", [], False), ("y", "DoesNotExist", [], True)]],
    ({"matchLabels": {"tier": "web"}, "matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, False),
]
# fmt: on


@pytest.mark.parametrize(("selector", "selected"), SELECTORS)
def test_label_selector(selector: dict[str, Any], selected: bool) -> None:
    for check_id in (PRIVILEGED, HOST_NS):
        assert excluded(judge(LABELLED, check_id, params={"label_selector": selector})) is not selected


def test_label_selector_reads_the_objects_own_labels() -> None:
    """Of a Service its own; of a workload those of its pods, not the controller's."""
    selector = {"allowed_ports": ["80"], "label_selector": {"matchLabels": {"a": "1"}}}
    assert not excluded(judge(service(81, labels={"a": "1"}), PORTS, params=selector))
    assert excluded(judge(service(81), PORTS, params=selector))
    other = merged(LABELLED, {"metadata": {"labels": {"a": "1"}}})
    assert excluded(judge(other, PRIVILEGED, params={"label_selector": {"matchLabels": {"a": "1"}}}))


@pytest.mark.parametrize(
    ("namespace", "params", "out"),
    [
        ("kube-system", {}, True),
        ("gke-managed-cim", {}, True),
        ("gke-managed", {}, False),
        ("kube-system-x", {}, False),
        ("kube-system", {"excluded_namespaces": []}, False),
        ("n", {"excluded_namespaces": ["n"]}, True),
        ("nn", {"excluded_namespaces": ["n"]}, False),
        ("n", {"namespaces": ["n"]}, False),
        ("n", {"namespaces": ["m"]}, True),
        ("kube-system", {"namespaces": ["kube-system"]}, True),
    ],
)
def test_namespaces(namespace: str, params: dict[str, Any], out: bool) -> None:
    for check_id in (PRIVILEGED, HOST_NS):
        assert excluded(judge(deployment(BAD, namespace=namespace), check_id, params=params)) is out


def test_defender_leaves_out_what_microsoft_leaves_out() -> None:
    assert excluded(judge(deployment(BAD, namespace="azuredefender"), PRIVILEGED, profile="defender"))
    assert not excluded(judge(deployment(namespace="azuredefender"), HOST_NS, profile="defender"))
    assert not excluded(judge(deployment(BAD, namespace="calico-system"), PRIVILEGED, profile="defender"))


# fmt: off
EXCLUSIONS: list[tuple[str, list[str], dict[str, Any], set[str]]] = [
    (PRIVILEGED, ["r.io/x:1"], {"excluded_images": ["r.io/x:1"]}, {"not_applicable"}),
    (PRIVILEGED, ["r.io/x:1"], {"excluded_images": ["r.io/*"]}, {"not_applicable"}),
    (PRIVILEGED, ["r.io/x:1"], {"excluded_images": ["r.io/"]}, {"fail"}),
    (PRIVILEGED, ["R.io/x:1"], {"excluded_images": ["r.io/*"]}, {"fail"}),
    (PRIVILEGED, ["r.io/x:1", "s.io/x:1"], {"excluded_images": ["r.io/*"]}, {"not_applicable", "fail"}),
    (PRIVILEGED, ["r.io/x:1", "s.io/x:1"], {"excluded_containers": ["c1"]}, {"not_applicable", "fail"}),
    (PRIVILEGED, ["r.io/x:1"], {"excluded_containers": ["c*"]}, {"fail"}),
    # a check of the whole pod is out of scope only when every container is
    (HOST_NS, ["r.io/x:1", "r.io/y:1"], {"excluded_images": ["r.io/*"]}, {"not_applicable"}),
    (HOST_NS, ["r.io/x:1", "s.io/y:1"], {"excluded_images": ["r.io/*"]}, {"fail"}),
]
# fmt: on


@pytest.mark.parametrize(("check_id", "images", "params", "want"), EXCLUSIONS)
def test_excluded_images_and_containers(
    check_id: str, images: list[str], params: dict[str, Any], want: set[str]
) -> None:
    containers = [{**secured(privileged=True), "name": f"c{i}", "image": image} for i, image in enumerate(images)]
    assert statuses(judge(pod(*containers, hostPID=True), check_id, params=params)) == want


def test_pod_with_one_ephemeral_container_that_is_not_excluded_stays_in_scope() -> None:
    debug = [{"name": "d", "image": "busybox"}]
    item = pod(hostPID=True, ephemeralContainers=debug)
    assert statuses(judge(item, HOST_NS, params={"excluded_images": ["r.io/*"]})) == {"fail"}


def test_host_path_counts_where_a_container_in_scope_mounts_it() -> None:
    users = [container(n, volumeMounts=[{"name": n, "mountPath": "/x"}]) for n in ("a", "b")]
    volumes = [{"name": n, "hostPath": {"path": f"/{n}"}} for n in ("a", "b")]
    (finding,) = judge(pod(*users, volumes=volumes), HOST_PATH, params={"excluded_containers": ["a"]})
    assert [e.value for e in finding.evidence] == ["/b"]


def test_excluded_shapes_do_not_hide_others() -> None:
    skipped = merged(pod(GOOD, name="x-0"), {"metadata": {"labels": {"skip": "y"}}})
    pods = [owned(skipped, "StatefulSet", "x"), owned(pod(BAD, name="x-1"), "StatefulSet", "x")]
    selector = {"label_selector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]}}
    (finding,) = judge(pods, PRIVILEGED, params=selector, live=True)
    assert (finding.status, finding.pods) == ("fail", ("x-1",))


# ---------------------------------------------------------------------------------------------------------------------
# Exemptions


def exempt(**changes: Any) -> Exemption:
    entry = {"checks": [PRIVILEGED], "reason": "vendor image", **changes}
    return msgspec.convert(entry, Exemption)


EXEMPTED = merged(
    deployment(BAD, container("b", securityContext={"privileged": True})), {"metadata": {"labels": {"team": "x"}}}
)


@pytest.mark.parametrize(
    ("changes", "containers"),
    [
        ({}, ["a", "b"]),
        ({"checks": ["k8s-priv*"]}, ["a", "b"]),
        ({"checks": ["k8s-run-as-root"]}, []),
        ({"resources": {"container": "a"}}, ["a"]),
        ({"resources": {"kind": "Deployment", "namespace": "n", "name": "d*"}}, ["a", "b"]),
        ({"resources": {"kind": "deployment"}}, []),
        ({"resources": {"namespace": "m"}}, []),
        ({"resources": {"cluster": "prod"}}, []),
        ({"resources": {"labels": {"team": "x"}}}, ["a", "b"]),
        ({"resources": {"labels": {"team": "y"}}}, []),
        ({"expires": TODAY}, ["a", "b"]),
        ({"expires": TODAY - timedelta(days=1)}, []),
    ],
)
def test_exemption(changes: dict[str, Any], containers: list[str]) -> None:
    """It is a note beside the finding; the status stays."""
    exemptions = Exemptions([exempt(**changes)], TODAY)
    tally = Tally()
    findings = judge(EXEMPTED, PRIVILEGED, exemptions=exemptions, tally=tally)
    assert [f.resource.container for f in findings if f.exemption] == containers
    assert statuses(findings) == {"fail"}
    assert tally.exempted == len(containers)
    assert tally.total(Status.FAIL) == sum(tally.failing().values()) == 2 - len(containers)
    assert bool(exemptions.warnings()) is (not containers)


def test_exemption_tells_reason_owner_and_last_day() -> None:
    entry = exempt(owner="platform", expires=date(2027, 3, 31))
    note = judge(deployment(BAD), PRIVILEGED, exemptions=Exemptions([entry], TODAY))[0].exemption
    assert note
    assert (note.reason, note.owner, note.expires) == ("vendor image", "platform", "2027-03-31")


def test_exemptions_that_expired_or_match_nothing_are_reported() -> None:
    late, unused = exempt(expires=date(2020, 1, 1)), exempt(resources={"name": "nobody"})
    exemptions = Exemptions([late, unused], TODAY)
    judge(deployment(BAD), PRIVILEGED, exemptions=exemptions)
    expired, unmatched = exemptions.warnings()
    assert "expired on 2020-01-01" in expired
    assert "matches no finding" in unmatched


def test_a_pass_needs_no_exemption() -> None:
    exemptions = Exemptions([exempt()], TODAY)
    assert judge(deployment(GOOD), PRIVILEGED, exemptions=exemptions)[0].exemption is None
    assert exemptions.warnings()


# ---------------------------------------------------------------------------------------------------------------------
# Parameters that nobody set

APPS = [deployment(), deployment(name="e"), service(80), service(80, 443, name="t")]


def test_missing_parameters_are_told_once() -> None:
    tally = Tally()
    findings = judge(APPS, [IMAGES, PORTS], tally=tally)
    assert {(f.check, f.resource.kind, f.reason, f.occurrences) for f in findings} == {
        (IMAGES, "Files", "configuration_required", 2),
        (PORTS, "Files", "configuration_required", 2),
    }
    assert "r.io" in next(f.message for f in findings if f.check == IMAGES)
    assert "80 (2)" in next(f.message for f in findings if f.check == PORTS)
    assert tally.failing().total() == 0  # never trips a gate
    assert tally.total(Status.FAIL) == 2


def test_microsoft_lists_missing_parameters_for_each_object() -> None:
    findings = judge(APPS, [IMAGES, PORTS], profile="defender")
    assert sorted(subjects(findings)) == ["Deployment/d#a", "Deployment/e#a", "Service/s", "Service/t"]
    assert {f.reason for f in findings} == {"configuration_required"}


def test_nothing_is_required_where_nothing_would_be_judged() -> None:
    (finding,) = judge(deployment(), "k8s-container-allowed-ports")
    assert finding.status == "pass"


# ---------------------------------------------------------------------------------------------------------------------
# Missing evidence, crashes, objects that are not understood


@pytest.mark.parametrize(("namespace", "rows"), [("*", 1), ("n", 1), ("kube-system", 0)])
def test_a_denied_list_is_one_unknown_for_each_check(namespace: str, rows: int) -> None:
    denied = gap("pods", namespace=namespace, permission="list pods")
    findings = judge(deployment(GOOD), [PRIVILEGED, HOST_NS], live=True, gaps=[denied])
    unknown = [f for f in findings if f.status == "unknown"]
    assert len(unknown) == 2 * rows
    assert {(f.resource.kind, f.resource.namespace, f.resource.name) for f in unknown} <= {("pods", namespace, "*")}
    assert all("list pods" in f.message and f.reason == "forbidden" for f in unknown)


def test_kinds_that_were_not_collected_are_unknown() -> None:
    inv = inventory(deployment(GOOD), live=True, kinds=["pods", "services"])
    findings = evaluate(inv, settings(PRIVILEGED), live=True)
    assert statuses(findings) == {"unknown"}
    assert {f.reason for f in findings} == {"not_collected"}
    assert "deployments" in {f.resource.kind for f in findings}


def make(function: Callable[..., Any]) -> dict[str, Check]:
    function.__doc__ = "Title\n\nWhy."
    declared = check("k8s-made-up", Severity.LOW, fix="Fix.", controls=(), refs=())(function)
    return {declared.id: declared}


def crashes(c: Container) -> Verdict:
    raise KeyError(c.name)


def says_nothing(c: Container) -> Verdict:
    return None  # type: ignore[return-value]


def crashes_on_b(c: Container) -> Verdict:
    return PASS if c.name == "a" else 1 / 0  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("function", "found"),
    [(crashes, ["error", "error"]), (says_nothing, ["error", "error"]), (crashes_on_b, ["pass", "error"])],
)
def test_a_check_that_crashes_is_an_error(function: Callable[..., Any], found: list[str]) -> None:
    inv = inventory(pod(container("a"), container("b")))
    findings = evaluate(inv, settings(catalogue=make(function)))
    assert [f.status.value for f in findings] == found
    assert {f.reason for f in findings if f.status == "error"} == {"check_crashed"}


BROKEN = container("broken", securityContext={"privileged": "yes"})


@pytest.mark.parametrize("where", ["containers", "initContainers", "ephemeralContainers"])
def test_a_broken_container_costs_itself(where: str) -> None:
    item = pod(GOOD, container("b", securityContext={"privileged": True}))
    item["spec"].setdefault(where, []).insert(0, BROKEN)
    findings = judge(item, [PRIVILEGED, HOST_NS])
    assert {(f.check, f.resource.container, f.status.value) for f in findings} == {
        (PRIVILEGED, "a", "pass"),
        (PRIVILEGED, "b", "fail"),
        ("k8s-invalid-object", "broken", "error"),
    }, "nothing may pass for the whole pod"


def test_a_broken_container_does_not_hide_what_the_pod_does() -> None:
    findings = judge(pod(GOOD, BROKEN, hostPID=True), HOST_NS)
    assert statuses([f for f in findings if f.check == HOST_NS]) == {"fail"}


@pytest.mark.parametrize(
    "items", [[pod(GOOD, {**BROKEN, "name": "a"})], [deployment(GOOD), deployment({**BROKEN, "name": "a"})]]
)
def test_no_pass_under_the_name_of_a_broken_container(items: list[Object]) -> None:
    assert "pass" not in statuses(judge(items, PRIVILEGED))


def test_no_pass_beside_a_broken_duplicate() -> None:
    broken = merged(deployment(), {"spec": {"template": 5}})
    assert statuses(judge([deployment(GOOD), broken], PRIVILEGED)) == {"error"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": {"hostPID": "yes"}}, "hostPID"),
        ({"spec": {"containers": {}}}, "containers"),
        ({"spec": {"containers": []}}, "no containers"),
        ({"spec": {"containers": None}}, "no containers"),
        ({"spec": {"volumes": "none"}}, "volumes"),
        ({"spec": None}, "object"),
        ({"spec": []}, "object"),
        ({"metadata": {"labels": ["a"]}}, "labels"),
        ({"metadata": {"annotations": 5}}, "object"),
        ({"status": {"phase": 5}}, "phase"),
    ],
)
def test_a_pod_that_is_not_understood_is_one_error_and_no_pass(change: Object, message: str) -> None:
    findings = judge(merged(pod(GOOD), change))
    assert {(f.check, f.status.value) for f in findings if f.status not in ("not_applicable", "fail")} == {
        ("k8s-invalid-object", "error")
    }
    assert all(f.reason == "configuration_required" for f in findings if f.status == "fail")
    (error,) = (f for f in findings if f.status == "error")
    assert message in error.message


@pytest.mark.parametrize("template", [5, None, {}, {"spec": None}, {"spec": {"containers": 5}}])
@pytest.mark.parametrize("kind", ["Deployment", "Job", "ReplicationController"])
def test_a_broken_template_is_one_error(kind: str, template: Any) -> None:
    item = deployment(kind=kind)
    item["spec"]["template"] = template
    (finding,) = judge(item, [PRIVILEGED, HOST_NS, NAMESPACE])
    assert (finding.check, finding.resource.kind, finding.resource.name) == ("k8s-invalid-object", kind, "d")


def test_an_unreadable_object_is_reported_whatever_namespace_was_asked_for() -> None:
    item = merged(pod(BAD, namespace="n"), {"metadata": {"labels": 5}})
    assert statuses(judge(item, PRIVILEGED, keep=frozenset({"n"}))) == {"error"}


def test_one_bad_port_costs_its_service() -> None:
    broken = merged(service(), {"spec": {"ports": [{"port": "http"}]}})
    findings = judge([broken, service(80, name="t")], PORTS, params={"allowed_ports": ["80"]})
    assert {(f.resource.name, f.status.value) for f in findings} == {("s", "error"), ("t", "pass")}


@pytest.mark.parametrize("value", [False, 5, ["true"]])
def test_annotation_that_is_not_text_is_an_error(value: object) -> None:
    """`ssl-redirect: false` without quotes is refused by the API server."""
    notes = {"nginx.ingress.kubernetes.io/ssl-redirect": value}
    spec = {"ingressClassName": "nginx", "tls": [{}], "rules": [{"host": "a.x"}]}
    item = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "i", "annotations": notes},
        "spec": spec,
    }
    assert statuses(judge(item, "k8s-https-only")) == {"error"}


# ---------------------------------------------------------------------------------------------------------------------
# Ids


def ids(source: Any, **options: Any) -> set[str]:
    return {f.id for f in judge(source, PRIVILEGED, **options) if f.status == "fail"}


# fmt: off
STABLE: list[tuple[str, Any, Any]] = [
    ("image", deployment(BAD), deployment({**BAD, "image": "r.io/x@sha256:abc"})),
    ("place in the list", deployment(BAD), deployment(container("z"), BAD)),
    ("init or not", deployment(BAD, container("b")), deployment(container("b"), initContainers=[BAD])),
    ("document", deployment(BAD), [service(80), deployment(BAD)]),
    ("api version", deployment(BAD), {**deployment(BAD), "apiVersion": "extensions/v1beta1"}),
    ("older api version", deployment(BAD), {**deployment(BAD), "apiVersion": "apps/v1beta2"}),
    ("labels", deployment(BAD), merged(deployment(BAD), {"metadata": {"labels": {"a": "b"}}})),
    ("second document of one name", deployment(BAD), [deployment(BAD), deployment(BAD)]),
]
# fmt: on


@pytest.mark.parametrize(("one", "other"), [c[1:] for c in STABLE], ids=[c[0] for c in STABLE])
def test_id_stays(one: Any, other: Any) -> None:
    assert ids(one) == ids(other)
    assert len(ids(one)) == 1


# fmt: off
LIVE_STABLE: list[tuple[str, Any, Any]] = [
    ("rollout", of_deployment(pod(BAD, name="web-1"), revision="111"),
     of_deployment(pod(BAD, name="web-2"), revision="222")),
    ("pods or template", of_deployment(pod(BAD)), deployment(BAD, name="web")),
    ("cron run", owned(pod(BAD, name="a"), "Job", "nightly-29012345", "batch/v1"),
     owned(pod(BAD, name="b"), "Job", "nightly-29012346", "batch/v1")),
    ("Jobs in view", owned(pod(BAD), "Job", "nightly-29012345", "batch/v1"),
     [owned(pod(BAD), "Job", "nightly-29012345", "batch/v1"), controlled("Job", "nightly-29012345", CRON)]),
    ("debug session", pod(ephemeralContainers=[{**BAD, "name": "debugger-1"}]),
     pod(ephemeralContainers=[{**BAD, "name": "debugger-2"}])),
    ("node of a static pod", static_pod("node-1"), static_pod("node-2")),
]
# fmt: on


@pytest.mark.parametrize(("one", "other"), [c[1:] for c in LIVE_STABLE], ids=[c[0] for c in LIVE_STABLE])
def test_id_stays_in_a_cluster(one: Any, other: Any) -> None:
    assert ids(one, live=True) == ids(other, live=True)
    assert len(ids(one, live=True)) == 1


@pytest.mark.parametrize(
    "other",
    [
        deployment(BAD, name="e"),
        deployment(BAD, namespace="m"),
        deployment(BAD, kind="StatefulSet"),
        deployment({**BAD, "name": "b"}),
    ],
)
def test_another_subject_has_another_id(other: Object) -> None:
    assert ids(deployment(BAD)).isdisjoint(ids(other))
    assert ids(deployment(BAD)).isdisjoint(ids(deployment(BAD), live=True))


def test_id_of_a_denied_list_does_not_know_the_reason() -> None:
    rows = [judge([], PRIVILEGED, live=True, gaps=[gap("pods", reason)])[0].id for reason in ("forbidden", "timeout")]
    assert rows[0] == rows[1]


def test_ids_are_unique() -> None:
    findings = judge([*APPS, pod(BAD, BROKEN, hostPID=True), of_deployment(pod(BAD))], profile="defender-2021")
    assert len({f.id for f in findings}) == len(findings)


# ---------------------------------------------------------------------------------------------------------------------
# Configuration that reaches the engine


@pytest.mark.parametrize(
    ("check_id", "params", "message"),
    [
        (PORTS, {"allowed_ports": ["80", "http"]}, "not a port"),
        (PORTS, {"allowed_ports": ["90-80"]}, "not a port"),
        (LIMITS, {"cpu_limit": "many"}, "not a Kubernetes quantity"),
        (IMAGES, {"allowed_images_regex": "("}, "allowed_images_regex"),
        (PRIVILEGED, {"label_selector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}, "label_selector"),
        (PRIVILEGED, {"excluded_image": []}, "excluded_images"),
        (HOST_PATH, {"allowed_host_paths": [{"path": "/"}]}, "path"),
    ],
)
def test_bad_parameters_are_refused_before_anything_is_read(
    check_id: str, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(config.ConfigError, match=message):
        settings(check_id, params=params)


@pytest.mark.parametrize(
    ("pattern", "warned"),
    [(r"^[^/]+\.azurecr\.io/.+$", False), ("azurecr.io", True), ("^azurecr.io/", True), ("", False)],
)
def test_a_pattern_that_is_not_anchored_is_warned_of(pattern: str, warned: bool) -> None:
    assert bool(settings(IMAGES, params={"allowed_images_regex": pattern}).warnings) is warned


def test_findings_show_the_parameters_that_decided() -> None:
    (finding,) = judge(deployment(), LIMITS, params={"cpu_limit": "2"})
    shown = {p.name: (p.value, p.origin) for p in finding.parameters}
    assert shown["cpu_limit"] == ("2", "config")
    assert shown["memory_limit"] == ("64Gi", "default")
