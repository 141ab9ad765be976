"""Small changes of the code that would hide a fail or an unknown: each of these tests notices one."""

import pytest
from support import (
    TODAY,
    container,
    deployment,
    evaluate,
    gap,
    judge,
    merged,
    owned,
    pod,
    secured,
    settings,
)

from scanner import kube, owners, workloads
from scanner.exemptions import Exemption, Exemptions, Resources

BAD, GOOD = secured(privileged=True), secured(privileged=False)
PRIVILEGED, TOKEN, LIMITS, HTTPS = (
    "k8s-privileged-container",
    "k8s-automount-api-credentials",
    "k8s-container-limits",
    "k8s-https-only",
)


def limit_range(name, kind="Container", **default):
    spec = {"limits": [{"type": kind, "default": default}]}
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": name, "namespace": "n"}, "spec": spec}


def ingress(name="i", cls=None, tls=None, hosts=("h.x",), **notes):
    spec = {"tls": tls, "rules": [{"host": h} for h in hosts]} | ({"ingressClassName": cls} if cls else {})
    meta = {"name": name, "namespace": "n", "annotations": {k.replace("__", "/"): v for k, v in notes.items()}}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": spec}


def status(found, name=None):
    return {f.status.value for f in found if name in (None, f.resource.name)}


TLS = [{"hosts": ["h.x"]}]
MERGEABLE = "nginx.org/mergeable-ingress-type"


def test_the_first_limit_range_does_not_excuse_a_later_one():
    found = judge(
        [limit_range("a", cpu="99", memory="1Gi"), limit_range("b", cpu="1"), deployment()], LIMITS, live=True
    )
    assert status(found) == {"fail"}


def test_only_defaults_for_containers_count():
    found = judge([limit_range("a", "Pod", cpu="1", memory="1Gi"), deployment()], LIMITS, live=True)
    assert status(found) == {"fail"}


def test_a_user_of_the_same_name_is_no_service_account():
    meta = {"name": "b", "namespace": "n"}
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta}
    binding["subjects"] = [{"kind": "User", "name": "default"}]
    (found,) = judge([binding, pod()], TOKEN, params={"exempt_with_rbac": True})
    assert (found.status, found.severity) == ("fail", "high")


def test_only_a_running_pod_is_on_its_node():
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "w", "labels": {"kubernetes.io/os": "windows"}}}
    assert status(judge([node, deployment(BAD, nodeName="w")], PRIVILEGED, live=True)) == {"fail"}


def test_os_name_linux_outranks_a_windows_selector():
    item = pod(BAD, os={"name": "linux"}, nodeSelector={"kubernetes.io/os": "windows"})
    assert status(judge(item, PRIVILEGED)) == {"fail"}


def test_service_accounts_denied_in_one_namespace():
    assert status(judge(deployment(), TOKEN, live=True, gaps=[gap("serviceaccounts", namespace="n")])) == {"unknown"}


def test_a_token_that_is_not_the_first_source_is_seen():
    volume = {"name": "t", "projected": {"sources": [{"configMap": {}}, {"serviceAccountToken": {"path": "x"}}]}}
    item = pod(
        container(volumeMounts=[{"name": "t", "mountPath": "/t"}]), automountServiceAccountToken=False, volumes=[volume]
    )
    assert status(judge(item, TOKEN, params={"flag_manual_tokens": True})) == {"fail"}


def test_nor_does_an_audience_of_the_first_hide_the_second():
    sources = [{"serviceAccountToken": {"audience": "vault"}}, {"serviceAccountToken": {}}]
    item = pod(
        container(volumeMounts=[{"name": "t", "mountPath": "/t"}]),
        automountServiceAccountToken=False,
        volumes=[{"name": "t", "projected": {"sources": sources}}],
    )
    assert status(judge(item, TOKEN, params={"flag_manual_tokens": True})) == {"fail"}


def test_a_condition_that_is_false_ends_no_job():
    job = owned(deployment(BAD, name="c-manual", kind="Job"), "CronJob", "c", api="batch/v1")
    job["status"] = {"conditions": [{"type": "Failed", "status": "False"}]}
    assert status(judge(job, PRIVILEGED, live=True)) == {"fail"}


@pytest.mark.parametrize("phase", [None, "Running"])
def test_an_escaped_annotation_is_still_read(phase):
    key = "container.\\u0061pp\\u0061rmor.security.beta.kubernetes.io/a"
    status_ = f',"status":{{"phase":"{phase}"}}' if phase else ""
    data = (
        f'{{"metadata":{{"name":"p","namespace":"n","annotations":{{"{key}":"unconfined"}}}},'
        f'"spec":{{"containers":[{{"name":"a","image":"x"}}]}}{status_}}}'
    )
    fold = workloads.Fold(frozenset(kube.KINDS))
    fold.lookups.in_cluster = phase is not None
    fold.add(kube.BY_NAME["Pod"], data.encode())
    assert status(evaluate(fold.finish(), settings("k8s-apparmor-profile"))) == {"fail"}


def test_a_service_port_without_a_number_is_an_error():
    meta = {"name": "s", "namespace": "n"}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"name": "http"}]}}
    found = judge(service, "k8s-service-allowed-ports", params={"allowed_ports": ["443"]})
    assert [(f.check, f.status) for f in found] == [("k8s-invalid-object", "error")]


def test_a_container_without_a_name_is_an_error():
    found = judge(pod({"image": "x"}), PRIVILEGED)
    assert [(f.check, f.status) for f in found] == [("k8s-invalid-object", "error")]


def test_a_pod_of_unknown_phase_is_judged():
    assert status(judge(merged(pod(BAD), {"status": {"phase": "Unknown"}}), PRIVILEGED, live=True)) == {"fail"}


def test_a_pod_in_a_file_does_not_vouch_for_the_template_beside_it():
    claim = merged(owned(pod(GOOD, name="d-0"), "StatefulSet", "d"), {"status": {"phase": "Running"}})
    assert status(judge([claim, deployment(BAD, kind="StatefulSet")], PRIVILEGED)) == {"fail"}


def test_a_node_in_a_file_makes_no_windows():
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "w", "labels": {"kubernetes.io/os": "windows"}}}
    claim = merged(pod(BAD, nodeName="w"), {"status": {"phase": "Running"}})
    assert status(judge([node, claim], PRIVILEGED)) == {"fail"}


def run(name, *containers):
    return owned(pod(*containers, name=f"{name}-x"), "Job", name, api="batch/v1")


def test_pods_of_several_runs_outrank_the_template_and_are_all_counted():
    spec = {"jobTemplate": {"spec": {"template": {"spec": {"containers": [secured(privileged=None)]}}}}}
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c", "namespace": "n"}, "spec": spec}
    found = judge([cron, run("c-28000001", BAD), run("c-28000002", BAD)], PRIVILEGED, live=True)
    assert [(f.resource.name, f.status, f.occurrences) for f in found] == [("c", "fail", 2)]
    cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"] = [BAD]
    assert status(judge([cron, run("c-28000001", GOOD)], PRIVILEGED, live=True)) == {"pass"}


def test_an_exemption_by_label_needs_the_label_on_every_failing_pod():
    def of(number, team):
        item = owned(pod(BAD, name=f"s-{number}"), "StatefulSet", "s")
        return merged(item, {"metadata": {"labels": {"team": team} if team else {}}})

    entry = Exemption(checks=("*",), reason="r", resources=Resources(labels={"team": "legacy"}))
    for pods in ([of(0, "legacy"), of(1, "")], [of(0, ""), of(1, "legacy")]):
        (found,) = judge(pods, PRIVILEGED, live=True, exemptions=Exemptions([entry], TODAY))
        assert found.exemption is None


def test_a_short_number_at_the_end_makes_no_cron_job():
    (found,) = judge(run("migrate-1", BAD), PRIVILEGED, live=True)
    assert (found.resource.kind, found.resource.name) == ("Job", "migrate-1")


def test_a_hash_inside_the_name_makes_no_deployment():
    item = owned(pod(BAD), "ReplicaSet", "web-abc-x", labels={"pod-template-hash": "abc"})
    (found,) = judge(item, PRIVILEGED, live=True)
    assert (found.resource.kind, found.resource.name) == ("ReplicaSet", "web-abc-x")


def test_a_kind_under_a_wrong_group_of_kubernetes_own_is_told():
    assert owners.misspelt("networking.k8s.io/v1", "Deployment")
    assert owners.misspelt("example.com/v1", "Deployment") is None


def test_excluded_images_do_not_excuse_a_pod_with_a_broken_container():
    item = pod(container("ok"), container("bad", securityContext={"privileged": "yes"}), hostPID=True)
    found = judge(item, "k8s-host-namespaces", params={"excluded_images": ["r.io/*"]})
    assert {(f.check, f.status.value) for f in found} == {
        ("k8s-host-namespaces", "fail"),
        ("k8s-invalid-object", "error"),
    }


def test_a_gap_of_the_whole_cluster_holds_for_a_check_of_some_namespaces():
    found = judge([], PRIVILEGED, params={"namespaces": ["prod"]}, gaps=[gap("pods")], live=True)
    assert "unknown" in status(found)


def test_what_a_check_looks_up_has_to_be_collected_too():
    found = judge(ingress(cls="web", tls=TLS), HTTPS, live=True, kinds=("ingresses", "namespaces"))
    assert status(found) == {"unknown"}


def default_class(name, controller):
    meta = {"name": name, "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}
    api = "networking.k8s.io/v1"
    return {"apiVersion": api, "kind": "IngressClass", "metadata": meta, "spec": {"controller": controller}}


def test_of_two_default_classes_none_is_taken_for_granted():
    classes = [default_class("a", "ingress.k8s.aws/alb"), default_class("b", "azure/application-gateway")]
    assert status(judge([*classes, ingress(tls=[{"hosts": ["other.x"]}])], HTTPS)) == {"fail"}


def minion(*hosts):
    return ingress("minion", "nginx", None, hosts, **{MERGEABLE: "minion"})


def test_a_master_without_tls_covers_no_minion():
    found = judge([minion("h.x"), ingress("master", "nginx", None, **{MERGEABLE: "master"})], HTTPS)
    assert status(found, "minion") == {"fail"}


@pytest.mark.parametrize("hosts", [("h.x", "bare.x"), ()])
def test_a_minion_needs_a_master_for_every_host_and_a_host(hosts):
    found = judge([minion(*hosts), ingress("master", "nginx", TLS, **{MERGEABLE: "master"})], HTTPS)
    assert status(found, "minion") == {"fail"}


def test_a_frontend_config_of_another_namespace_does_not_count():
    meta = {"name": "f", "namespace": "other"}
    config = {"apiVersion": "networking.gke.io/v1beta1", "kind": "FrontendConfig", "metadata": meta}
    config["spec"] = {"redirectToHttps": {"enabled": True}}
    item = ingress(cls="gce", tls=TLS, **{"networking.gke.io__v1beta1.FrontendConfig": "f"})
    assert status(judge([config, item], HTTPS)) == {"fail"}


def test_a_manual_token_does_not_make_a_mounted_one_harmless():
    volume = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {}}]}}
    item = pod(container(volumeMounts=[{"name": "t", "mountPath": "/t"}]), volumes=[volume])
    (found,) = judge(item, TOKEN, params={"flag_manual_tokens": True})
    assert (found.status, found.severity, found.reason != "manual_token") == ("fail", "high", True)


def test_nginx_redirects_only_hosts_with_a_certificate():
    (found,) = judge(ingress(cls="nginx", tls=[{"hosts": ["other.x"]}]), HTTPS)
    assert (found.status, found.reason) == ("fail", "host_not_covered")


def test_a_redirect_without_an_https_listener_is_none():
    notes = {
        "alb.ingress.kubernetes.io__listen-ports": '[{"HTTP": 80}]',
        "alb.ingress.kubernetes.io__ssl-redirect": "443",
    }
    (found,) = judge(ingress(cls="alb", **notes), HTTPS)
    assert (found.status, found.reason) == ("fail", "no_tls")


def test_a_default_backend_answers_to_hosts_without_a_certificate():
    assert status(judge(ingress(cls="traefik", tls=TLS, hosts=()), HTTPS)) == {"fail"}


def test_azure_knows_no_masters():
    found = judge([minion("h.x"), ingress("master", "nginx", TLS, **{MERGEABLE: "master"})], HTTPS, profile="defender")
    assert status(found, "minion") == {"fail"}


# -- Ingresses


GCE, ALB = "gce", "alb"


def frontend(redirects):
    spec = {"redirectToHttps": {"enabled": redirects}}
    return {"apiVersion": "networking.gke.io/v1beta1", "kind": "FrontendConfig", "spec": spec} | {
        "metadata": {"name": "f", "namespace": "n"}
    }


@pytest.mark.parametrize("answers", [(True, False), (False, True)])
def test_frontend_config_defined_twice_redirects_only_if_both_do(answers):
    named = ingress(cls=GCE, tls=TLS, **{"networking.gke.io__v1beta1.FrontendConfig": "f"})
    assert status(judge([named, *map(frontend, answers)], HTTPS)) == {"fail"}


def test_alb_redirect_must_name_a_port():
    notes = {
        "alb.ingress.kubernetes.io__listen-ports": '[{"HTTP":80},{"HTTPS":443}]',
        "alb.ingress.kubernetes.io__ssl-redirect": "false",
    }
    assert status(judge(ingress(cls=ALB, **notes), HTTPS)) == {"fail"}


def test_only_alb_members_redirect_for_their_group():
    group = {"alb.ingress.kubernetes.io__group.name": "g"}
    ports = {"alb.ingress.kubernetes.io__listen-ports": '[{"HTTP":80},{"HTTPS":443}]'}
    other = ingress("o", cls="nginx", tls=TLS, **group, **{"alb.ingress.kubernetes.io__ssl-redirect": "443"})
    assert status(judge([ingress(cls=ALB, **group, **ports), other], HTTPS), "i") == {"fail"}


def test_master_must_have_a_certificate_for_the_minions_host():
    minion = ingress(cls="nginx", **{MERGEABLE.replace("/", "__"): "minion"})
    master = ingress("m", cls="nginx", tls=[{"hosts": ["other.x"]}], **{MERGEABLE.replace("/", "__"): "master"})
    assert status(judge([minion, master], HTTPS), "i") == {"fail"}


def test_largest_of_several_limit_ranges_counts():
    ranges = [limit_range(name, cpu=cpu, memory="1Gi") for name, cpu in (("a", "1"), ("b", "99"))]
    for order in (1, -1):
        assert status(judge([*ranges[::order], deployment()], LIMITS, live=True)) == {"fail"}
