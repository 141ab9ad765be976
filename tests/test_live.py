"""`scan kubeconfig`, from the command line to the report, against API servers on a real socket that misbehave."""

import contextlib
import itertools
import json
import re
import time
from collections import Counter

import cluster_data
import jsonschema_rs
import pytest
from apiserver import RESOURCES, ApiServer, body, drip, hang, html, reset, short, status, tls, truncated
from cli import kubeposture, process
from support import container, deployment, merged, owned, pod, secured

from providers.kubernetes import connection
from scanner.report import schema

VALID = jsonschema_rs.validator_for(schema.report_schema())
UID = "3f6b7a52-1c1e-4f0b-9d2e-0c1d5a4b7e10"
PRIVILEGED = "k8s-privileged-container"
LIMITS = "k8s-container-limits"
TOKEN = "k8s-automount-api-credentials"
PODS = r"^/api/v1/pods\?"
BAD = secured(privileged=True)
GOOD = secured(privileged=False)


@pytest.fixture(autouse=True)
def impatient(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "_BACKOFF", 0.01)
    monkeypatch.setattr(connection, "_LONGEST_WAIT", 0.05)


@pytest.fixture
def serve():
    """Starts servers. Whatever a test does, no scan may send anything but GET, or ask for Secrets."""
    requests = []

    def start(*objects, namespaces=("a", "b"), uid=UID, **options):
        server = ApiServer([namespace("kube-system", uid), *map(namespace, namespaces), *objects], **options)
        requests.append(server.requests)
        return stack.enter_context(server)

    with contextlib.ExitStack() as stack:
        yield start
    seen = [*itertools.chain(*requests)]
    assert {request.method for request in seen} <= {"GET"}
    assert not [request.path for request in seen if "secrets" in request.path]


def deny_cluster_wide(server):
    for resource in RESOURCES.values():
        if resource.namespaced:
            server.deny_cluster_wide(resource.plural)


def namespace(name, uid=""):
    meta = {"name": name, "labels": {"team": name}} | ({"uid": uid} if uid else {})
    return {"kind": "Namespace", "metadata": meta}


def running(item, node="node-1"):
    return merged(item, {"spec": {"nodeName": node}, "status": {"phase": "Running"}})


def replica(number, *containers, of="web", namespace="a", **spec):
    """A running pod of a Deployment."""
    item = pod(*containers, name=f"{of}-5d4f-{number:05}", namespace=namespace, **spec)
    return running(owned(item, "ReplicaSet", f"{of}-5d4f", labels={"pod-template-hash": "5d4f"}))


def crowd(count, **where):
    return [replica(number, BAD, **where) for number in range(count)]


class Scan:
    def __init__(self, result):
        self.code, self.error = result.code, result.stderr
        self.report = json.loads(result.stdout)
        VALID.validate(self.report)
        self.gaps = {(g["what"], g["namespace"]): g for g in self.report["gaps"]}
        self.planes = {c["name"]: c["data_plane"] for c in self.report["clusters"]}

    def listed(self, status, check=PRIVILEGED):
        """namespace/kind/name of the findings of one status."""
        return [
            "/".join((r["namespace"] or "", r["kind"], r["name"]))
            for f in self.report["findings"]
            if (f["status"], f["check"]) == (status, check)
            for r in [f["resource"]]
        ]

    def only(self):
        [finding] = self.report["findings"]
        return finding

    def ids(self, *statuses):
        return {f["id"] for f in self.report["findings"] if not statuses or f["status"] in statuses}

    def timeless(self):
        """The report without what differs from run to run."""
        text = json.dumps(self.report).replace(self.report["scan"]["id"], "SCAN")
        return json.loads(re.sub(r'"\d{4}-\d\d-\d\dT[\d:.]+Z"', '"TIME"', text))


@pytest.fixture
def scan(tmp_path):
    def run(server, *args, checks=(PRIVILEGED,), by=kubeposture, **kubeconfig):
        path = server.kubeconfig(tmp_path / "config", **kubeconfig)
        chosen = [part for check in checks for part in ("-c", check)]
        return Scan(by("scan", "kubeconfig", "--kubeconfig", path, "-o", "json", *chosen, *args))

    return run


# -- many pods


def test_a_large_cluster_is_read_in_pages(serve, scan):
    server = serve(namespaces=())
    cluster_data.populate(server, 1200)
    found = scan(server, checks=())
    assert (found.code, found.gaps, found.planes) == (0, {}, {"local": "complete"})
    pages = [request.query for request in server.requests if request.path == "/api/v1/pods"]
    assert [page["limit"] for page in pages] == ["500"] * 3
    flawed = [w for w in range(120) if cluster_data.FLAWS.get(w % 10) == "privileged"]
    assert found.listed("fail") == sorted(
        f"{cluster_data.namespace(w)}/Deployment/{cluster_data.name(w)}" for w in flawed
    )
    by_check = [f for f in found.report["findings"] if f["check"] == PRIVILEGED]
    assert {f["occurrences"] for f in by_check} == {10}
    assert found.report["coverage"]["objects"]["invalid"] == 0


def test_one_of_twenty_namespaces_is_refused(serve, scan):
    server = serve(namespaces=())
    cluster_data.populate(server, 1000)
    allowed = scan(server, checks=())
    for resource in RESOURCES.values():
        if resource.namespaced:
            server.deny(resource.plural, "team-07")
    found = scan(server, checks=())
    assert (found.code, found.planes) == (3, {"local": "partial"})
    assert found.gaps["pods", "team-07"]["permission"] == "list pods in namespace team-07"
    assert found.gaps["deployments", "team-07"]["permission"] == "list deployments.apps in namespace team-07"
    assert {(g["namespace"], g["reason"]) for g in found.report["gaps"]} == {("team-07", "forbidden")}

    def judged(report):
        return {f["id"]: f["occurrences"] for f in report["findings"] if f["resource"]["namespace"] != "team-07"}

    whole_cluster = {f["id"] for f in found.report["findings"] if f["resource"]["namespace"] is None}
    assert judged(found.report).keys() - whole_cluster == judged(allowed.report).keys() - whole_cluster
    here = [f for f in found.report["findings"] if f["resource"]["namespace"] == "team-07"]
    assert {(f["status"], f["reason"], f["resource"]["name"]) for f in here} == {("unknown", "forbidden", "*")}
    assert {f["check"] for f in here} >= {PRIVILEGED, LIMITS, TOKEN, "k8s-service-allowed-ports", "k8s-https-only"}


def test_refused_cluster_wide_everything_is_still_read(serve, scan):
    server = serve(*crowd(700), *crowd(20, namespace="b"))
    server.deny_cluster_wide("pods")
    found = scan(server)
    assert (found.code, found.gaps) == (0, {})
    assert [f["occurrences"] for f in found.report["findings"]] == [700, 20]


def test_a_list_refused_in_every_namespace_is_one_gap(serve, scan):
    server = serve(deployment(BAD, namespace="a"))
    server.deny("pods")
    found = scan(server)
    assert found.gaps.keys() == {("pods", "*")}
    assert found.listed("unknown") == ["*/pods/*"]
    assert found.listed("fail") == ["a/Deployment/d"]


# -- faults


@pytest.fixture
def small(serve):
    return serve(*crowd(3), running(pod(GOOD, namespace="b")), deployment(BAD, name="idle", namespace="b"))


@pytest.mark.parametrize(
    "fault", [status(429, retry_after=1), status(429), status(500), status(503), reset(), reset(b""), short()]
)
def test_a_passing_fault_leaves_no_trace(small, scan, fault):
    clean = scan(small)
    assert (clean.code, clean.listed("fail")) == (0, ["a/Deployment/web", "b/Deployment/idle"])
    small.inject(PODS, fault, times=2)
    assert scan(small).timeless() == clean.timeless()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (status(403), "forbidden"),
        (status(404), "not_found"),
        (status(410), "bad_data"),
        (status(429), "throttled"),
        (status(500), "server_error"),
        (reset(), "unreachable"),
        (short(), "bad_data"),
        (hang(), "timeout"),
        (truncated(), "bad_data"),
        (html(), "bad_data"),
        (body(b'{"kind":"PodList","items":{}}'), "bad_data"),
        (body(b'{"kind":"PodList","metadata":{}}'), "bad_data"),
        (body(b'{"kind":"ServiceList","items":[]}'), "bad_data"),
        (body(b'{"kind":"Status","status":"Failure","code":403}'), "bad_data"),
        (body(b"[]"), "bad_data"),
        (body(b"null"), "bad_data"),
        (body(b""), "bad_data"),
        (body(b'{"kind":"PodList","items":[' + b"[" * 50_000), "bad_data"),
        (body(b'\xff\xfe{"kind":"PodList","items":[]}'), "bad_data"),
    ],
)
def test_a_lasting_fault_is_a_gap_and_the_rest_is_judged(small, scan, fault, reason):
    small.inject("/pods", fault)
    found = scan(small, "--request-timeout", "0.2")
    assert (found.code, found.planes) == (3, {"local": "partial"})
    assert {key: gap["reason"] for key, gap in found.gaps.items()} == {("pods", "*"): reason}
    assert found.gaps["pods", "*"]["detail"]
    assert found.listed("unknown") == ["*/pods/*"]
    assert found.listed("fail") == ["b/Deployment/idle"]


def test_items_null_is_an_empty_list(small, scan):
    small.inject(PODS, body(b'{"kind":"PodList","apiVersion":"v1","metadata":{},"items":null}'))
    found = scan(small)
    assert (found.code, found.gaps, found.listed("fail")) == (0, {}, ["b/Deployment/idle"])


def test_a_fault_on_a_later_page_keeps_what_was_read(serve, scan):
    for fault in (status(403), truncated(), html()):
        server = serve(*crowd(1100))
        server.inject("/pods.*continue=", fault)
        found = scan(server)
        assert found.code == 3
        assert (found.listed("fail"), found.listed("unknown")) == (["a/Deployment/web"], ["*/pods/*"])
        assert [f["occurrences"] for f in found.report["findings"] if f["status"] == "fail"] == [500]


def test_the_time_for_a_cluster_has_an_end(small, scan):
    small.inject("/deployments", drip(0.01))
    started = time.monotonic()
    found = scan(small, "--timeout", "1")
    assert time.monotonic() - started < 4
    assert (found.code, found.listed("fail")) == (3, ["a/Deployment/web"])
    assert "the time for this cluster was up" in found.gaps["deployments", "*"]["detail"]
    assert {found.gaps[kind, "*"]["reason"] for kind in ("deployments", "statefulsets", "jobs")} == {"timeout"}


# -- 410 in the middle of a list


def crowded(serve):
    """Pods in key order, as a real server lists them; three pages."""
    return serve(*crowd(700), *crowd(600, namespace="b"), *crowd(50, namespace="b", of="zoo"))


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("page", [0, 1])
def test_an_expired_list_loses_no_pod_and_counts_none_twice(serve, scan, fresh, page):
    server = crowded(serve)
    clean = scan(server)
    assert [f["occurrences"] for f in clean.report["findings"]] == [700, 600, 50]
    server.inject("/pods.*continue=", status(410, fresh_continue=fresh), after=page, times=1)
    assert scan(server).timeless() == clean.timeless()


def test_a_list_that_expires_again_while_it_is_read_anew(serve, scan):
    server = crowded(serve)
    clean = scan(server)
    server.inject("/pods.*continue=", status(410), after=1, times=1)  # the third page
    server.inject("/pods.*continue=", status(410, fresh_continue=True), after=1, times=1)  # the second, then
    assert scan(server).timeless() == clean.timeless()


@pytest.mark.parametrize("fresh", [True, False])
def test_a_list_that_always_expires_is_a_gap(serve, scan, fresh):
    server = crowded(serve)
    server.inject("/pods.*continue=", status(410, fresh_continue=fresh))
    found = scan(server)
    assert (found.code, found.gaps["pods", "*"]["reason"]) == (3, "bad_data")
    assert [f["occurrences"] for f in found.report["findings"] if f["status"] == "fail"] == [500]
    assert len(server.requests) < 40


# -- objects that cannot be understood


def test_an_undecodable_object_costs_itself(serve, scan):
    server = serve(*crowd(3))
    odd = running(merged(pod(name="odd", namespace="a"), {"spec": {"containers": {}}}))
    items = [*map(json.dumps, (*crowd(2), odd, running(pod(BAD, name="single", namespace="b")))), "7", "null"]
    server.serve("pods", len(items), lambda start, stop: ",".join(items[start:stop]).encode())
    found = scan(server)
    assert found.code == 3
    assert found.listed("fail") == ["a/Deployment/web", "b/Pod/single"]
    errors = found.listed("error", "k8s-invalid-object")
    assert "a/Pod/odd" in errors
    assert found.report["coverage"]["objects"]["invalid"] == 3
    assert found.report["scan"]["complete"] is False


def test_a_broken_object_is_not_lost_when_its_list_expires(serve, scan):
    server = serve()
    items = [json.dumps(item) for item in crowd(1100)]
    items[499] = items[700] = '{"metadata":7}'
    server.serve("pods", len(items), lambda start, stop: ",".join(items[start:stop]).encode())
    server.inject("/pods.*continue=", status(410), times=1)
    found = scan(server)
    assert [f["occurrences"] for f in found.report["findings"] if f["status"] == "fail"] == [1098]
    assert found.report["coverage"]["objects"]["invalid"] == 3  # what has no name is rather told twice than not at all


# -- clusters that cannot be read at all


def unread(found, reason):
    assert (found.code, found.planes) == (4, {"local": "not_read"})
    assert {g["reason"] for g in found.report["gaps"]} == {reason}
    assert {f["status"] for f in found.report["findings"]} == {"unknown"}
    assert "nothing_read" in found.report["scan"]["exit_reasons"]
    return found.report["gaps"][0]["detail"]


def test_an_expired_token(serve, scan):
    server = serve(token="fresh")
    found = scan(server, token="stale")
    assert "the token may have expired" in unread(found, "forbidden")
    assert {g["permission"] for g in found.report["gaps"]} == {""}  # no right is missing
    assert len(server.requests) == 3
    assert "stale" not in json.dumps(found.report) + found.error


def test_tls_that_is_not_trusted(serve, scan):
    server = serve(tls=tls())
    assert "is not trusted" in unread(scan(server, ca=tls().ca), "unreachable")
    assert server.requests == []


@pytest.mark.parametrize("by", [kubeposture, process])
def test_connection_refused(serve, scan, by):
    server = serve()
    server.__exit__()
    assert "connection refused" in unread(scan(server, by=by), "unreachable")


def test_a_server_that_says_nothing(serve, scan):
    server = serve()
    server.inject("", hang())
    started = time.monotonic()
    assert "did not answer within 0.2 s" in unread(scan(server, "--request-timeout", "0.2", checks=()), "timeout")
    assert time.monotonic() - started < 4
    assert len(server.requests) == 3


def test_a_server_of_something_else(serve, scan):
    server = serve()
    server.inject("", html())
    assert "text/html instead of JSON" in unread(scan(server), "bad_data")


def test_a_plugin_that_is_not_installed(serve, scan):
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-login"}}
    detail = unread(scan(serve(), user=user), "not_configured")
    assert detail.startswith("context local: credential plug-in 'no-such-login' is not installed")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--context", "prd"], "no context matches 'prd' (there is prod)"),
        (["--kubeconfig", "absent"], "kubeconfig absent cannot be read: No such file or directory"),
    ],
)
def test_usage_errors(serve, tmp_path, args, said):
    path = serve().kubeconfig(tmp_path / "config", context="prod")
    result = kubeposture("scan", "kubeconfig", "--kubeconfig", path, *args)
    assert (result.code, result.stdout) == (2, "")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


# -- namespaces


def test_namespaces_refused_and_lists_too(serve, scan):
    server = serve(*crowd(2), *crowd(1, namespace="b"))
    server.deny("namespaces")
    deny_cluster_wide(server)
    found = scan(server, checks=())
    assert (found.code, {f["status"] for f in found.report["findings"]}) == (4, {"unknown"})
    assert found.gaps["namespaces", "*"]["permission"] == "list namespaces"
    every_check = {check for check, n in found.report["summary"]["by_check"].items() if n.get("unknown")}
    assert every_check >= {PRIVILEGED, LIMITS, TOKEN, "k8s-https-only", "k8s-service-allowed-ports"}

    found = scan(server, "-n", "b")  # named: that is all there is to read
    assert (found.code, found.gaps) == (0, {})
    assert found.listed("fail") == ["b/Deployment/web"]

    found = scan(server, namespace="a")  # the context's: read, but there may be others
    assert (found.code, found.planes) == (3, {"local": "partial"})
    assert found.listed("fail") == ["a/Deployment/web"]
    assert {("namespaces", "*"), ("pods", "*"), ("deployments", "*")} <= found.gaps.keys()
    assert "*/pods/*" in found.listed("unknown")

    found = scan(server, namespace="misspelt")  # may neither be looked at nor hold anything: still not clean
    assert found.code == 4
    assert "*/pods/*" in found.listed("unknown")


def test_namespaces_refused_but_lists_allowed(serve, scan):
    server = serve(*crowd(2), *crowd(1, namespace="b"))
    server.deny("namespaces")
    found = scan(server)
    assert (found.code, found.gaps.keys()) == (3, {("namespaces", "*")})
    assert found.listed("fail") == ["a/Deployment/web", "b/Deployment/web"]
    assert found.report["clusters"][0]["id_source"] == "api_server"


def test_the_contexts_namespace_is_judged_with_its_own_service_accounts(serve, scan):
    account = {"kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "a"}}
    server = serve(account | {"automountServiceAccountToken": False}, deployment(namespace="a"))
    server.deny("namespaces")
    deny_cluster_wide(server)
    found = scan(server, "--status", "all", checks=(TOKEN,), namespace="a")
    assert found.listed("pass", TOKEN) == ["a/Deployment/d"]


def test_a_misspelt_namespace(serve, scan):
    server = serve(*crowd(2))
    found = scan(server, "-n", "aa")
    assert (found.code, found.planes, found.listed("pass")) == (4, {"local": "not_read"}, [])
    assert found.gaps["namespaces", "aa"]["reason"] == "not_found"
    found = scan(server, "-n", "aa", "-n", "a", "-n", "a")
    assert (found.code, found.gaps.keys()) == (3, {("namespaces", "aa")})
    assert [f["occurrences"] for f in found.report["findings"]] == [2]


def test_a_namespace_whose_existence_cannot_be_asked_is_read(serve, scan):
    server = serve(*crowd(2))
    server.inject("/namespaces/a$", status(500))
    found = scan(server, "-n", "a")
    assert (found.code, found.gaps["namespaces", "a"]["reason"]) == (3, "server_error")
    assert found.listed("fail") == ["a/Deployment/web"]


def test_only_the_named_namespaces_are_asked_for(serve, scan):
    server = serve(*crowd(2), *crowd(1, namespace="b"), *crowd(1, namespace="a/../b?x"))
    assert scan(server, "-n", "b").listed("fail") == ["b/Deployment/web"]
    lists = {r.path for r in server.requests if r.query}
    assert lists - {"/api/v1/nodes"} == {p for p in lists if "/namespaces/b/" in p}
    assert scan(server, "-n", "b/../a?x").code == 4
    assert "/api/v1/namespaces/b%2F..%2Fa%3Fx" in {r.path for r in server.requests}


def test_excluded_namespaces(serve, scan):
    server = serve(*crowd(2), *crowd(1, namespace="b"))
    assert scan(server, "--exclude-namespace", "a*").listed("fail") == ["b/Deployment/web"]
    server.deny_cluster_wide("pods")
    before = len(server.requests)
    assert scan(server, "--exclude-namespace", "a*").listed("fail") == ["b/Deployment/web"]
    assert "/api/v1/namespaces/a/pods" not in {r.path for r in server.requests[before:]}


# -- what is asked for


def test_only_needed_kinds_are_listed(serve, scan):
    service = {"kind": "Service", "metadata": {"name": "s", "namespace": "a"}, "spec": {"ports": [{"port": 80}]}}
    server = serve(service, *crowd(1))
    check = "k8s-service-allowed-ports"
    found = scan(server, "--param", f"{check}.allowed_ports=443", checks=(check,))
    assert found.listed("fail", check) == ["a/Service/s"]
    identity = {"/api/v1/namespaces/kube-system", "/version"}
    assert {r.path for r in server.requests} == identity | {"/api/v1/namespaces", "/api/v1/services"}


def test_what_is_only_looked_up_is_asked_for_without_its_data(serve, scan):
    configmap = {"kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default"}, "data": {"key": "hidden"}}
    secret = {"kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}
    server = serve(configmap, secret, *crowd(1), namespaces=("default",))
    found = scan(server, "--status", "all", checks=("*",))
    accepted = {r.path.rsplit("/", 1)[-1]: r.headers["accept"].split(",")[0] for r in server.requests if r.query}
    partial = {kind for kind, accept in accepted.items() if "as=PartialObjectMetadataList" in accept}
    assert partial == {"configmaps", "namespaces", "nodes", "replicasets"}
    assert {accepted[kind] for kind in accepted.keys() - partial} == {"application/json"}
    assert "default/ConfigMap/c" in found.listed("fail", "k8s-default-namespace")
    assert "hidden" not in json.dumps(found.report)


def test_a_kind_that_a_cluster_does_not_have_is_no_gap(serve, scan):
    found = scan(serve(*crowd(1)), checks=("k8s-https-only",))
    assert (found.code, found.gaps, found.planes) == (0, {}, {"local": "complete"})


# -- several clusters


def test_contexts_side_by_side_by_glob_and_one_is_dead(serve, scan):
    one, two, dead, other = serve(*crowd(1)), serve(*crowd(2), uid="two"), serve(), serve(*crowd(4))
    dead.__exit__()
    for server in (one, two):
        server.latency = 0.02
    others = {"prod-us": two, "prod-dead": dead, "dev": other}
    found = scan(one, "--context", "prod-*", context="prod-eu", others=others)
    assert found.code == 3
    assert found.planes == {"prod-eu": "complete", "prod-us": "complete", "prod-dead": "not_read"}
    counts = {f["cluster"]["name"]: f["occurrences"] for f in found.report["findings"] if f["status"] == "fail"}
    assert counts == {"prod-eu": 1, "prod-us": 2}
    assert {f["cluster"]["name"] for f in found.report["findings"] if f["status"] == "unknown"} == {"prod-dead"}
    assert {g["cluster"] for g in found.report["gaps"]} == {"prod-dead"}
    assert found.report["coverage"]["clusters"] == {"expected": 3, "judged": 2, "partial": 0, "unread": 1}
    assert other.requests == []


def test_two_contexts_of_one_cluster_are_judged_once(serve, scan):
    server = serve(*crowd(3))
    found = scan(server, "--context", "*", context="admin", others={"auditor": server})
    assert list(found.planes.values()) == ["complete"]
    assert found.report["coverage"]["clusters"] == {"expected": 1, "judged": 1, "partial": 0, "unread": 0}
    assert found.report["summary"]["by_status"]["fail"] == 1
    assert "is a cluster that another target shows too" in found.report["scan"]["warnings"][0]


def test_ids_follow_the_cluster_and_not_the_way_to_it(serve, scan):
    server = serve(*crowd(1), tls=tls())
    first = scan(server, context="one")
    again = scan(server, context="two", cluster={"server": f"{server.url}/"})
    assert first.ids() == again.ids()
    assert first.report["clusters"][0]["id"] == again.report["clusters"][0]["id"] == UID
    server.deny("namespaces", "")
    server.inject("/namespaces/kube-system", status(403))
    unnamed, renamed = scan(server, context="one"), scan(server, context="two")
    assert unnamed.ids() == renamed.ids() != first.ids()
    assert unnamed.report["clusters"][0]["id_source"] == "api_server"


# -- what only a live cluster knows


def test_windows_by_the_label_of_the_node(serve, scan):
    nodes = [
        {"kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/os": system}}}
        for name, system in (("win-1", "windows"), ("lin-1", "linux"))
    ]
    pods = [running(pod(name=name, namespace="a"), node=name) for name in ("win-1", "lin-1")]
    check = "k8s-read-only-root-fs"
    found = scan(serve(*nodes, *pods), "--status", "all", checks=(check,))
    assert found.listed("not_applicable", check) == ["a/Pod/win-1"]
    assert found.listed("fail", check) == ["a/Pod/lin-1"]


def test_limit_ranges_count_for_templates_without_pods(serve, scan):
    limits = {"limits": [{"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}}]}
    limit_range = {"kind": "LimitRange", "metadata": {"name": "l", "namespace": "a"}, "spec": limits}
    idle = [deployment(namespace=place, name=f"in-{place}") for place in "ab"]
    limited = deployment(container(resources=limits["limits"][0] | {"limits": {"cpu": "1", "memory": "1Gi"}}), name="l")
    server = serve(limit_range, *idle, merged(limited, {"metadata": {"namespace": "a"}}), *crowd(1))
    found = scan(server, "--status", "all", checks=(LIMITS,))
    assert found.listed("pass", LIMITS) == ["a/Deployment/in-a", "a/Deployment/l"]
    assert found.listed("fail", LIMITS) == ["a/Deployment/web", "b/Deployment/in-b"]  # a running pod shows its limits
    server.deny("limitranges")
    found = scan(server, "--status", "all", checks=(LIMITS,))
    assert found.listed("unknown", LIMITS) == ["a/Deployment/in-a", "b/Deployment/in-b"]
    assert found.listed("pass", LIMITS) == ["a/Deployment/l"]
    assert found.listed("fail", LIMITS) == ["a/Deployment/web"]
    assert found.code == 3


def test_service_accounts_denied(serve, scan):
    mounted = container(volumeMounts=[{"name": "kube-api-access-x7k2p", "mountPath": cluster_data._TOKEN_PATH}])
    server = serve(replica(1, mounted), replica(1, of="api", namespace="b"), deployment(name="idle", namespace="b"))
    assert scan(server, checks=(TOKEN,)).listed("fail", TOKEN) == ["a/Deployment/web", "b/Deployment/idle"]
    server.deny("serviceaccounts")
    found = scan(server, "--status", "all", checks=(TOKEN,))
    assert found.listed("fail", TOKEN) == ["a/Deployment/web"]
    assert found.listed("pass", TOKEN) == ["b/Deployment/api"]
    assert found.listed("unknown", TOKEN) == ["b/Deployment/idle"]
    assert found.gaps["serviceaccounts", "*"]["permission"] == "list serviceaccounts"


def test_a_running_pod_outranks_its_template(serve, scan):
    server = serve(
        deployment(GOOD, name="web", namespace="a"), replica(1, BAD),
        deployment(BAD, name="api", namespace="a"), replica(1, GOOD, of="api"),
    )  # fmt: skip
    finding = scan(server).only()
    assert finding["resource"]["name"] == "web"
    assert finding["evidence"][0]["path"] == "spec.containers[0].securityContext.privileged"
    server.deny("pods")
    found = scan(server)
    assert (found.listed("fail"), found.listed("unknown")) == (["a/Deployment/api"], ["*/pods/*"])


def test_an_injected_sidecar_is_one_finding(serve, scan):
    sidecar = merged(BAD, {"name": "proxy"})
    server = serve(deployment(GOOD, name="web", namespace="a"), *(replica(n, GOOD, sidecar) for n in range(100)))
    finding = scan(server).only()
    assert (finding["resource"]["kind"], finding["resource"]["container"]) == ("Deployment", "proxy")
    assert finding["occurrences"] == 100
    assert finding["pods"] == [f"web-5d4f-{n:05}" for n in range(10)]


def test_a_lone_replica_set_is_judged_by_its_template(serve, scan):
    lone = deployment(BAD, name="lone", namespace="a", kind="ReplicaSet")
    old = owned(deployment(BAD, name="web-0000", namespace="a", kind="ReplicaSet"), "Deployment", "web")
    busy = deployment(BAD, name="busy", namespace="a", kind="ReplicaSet")
    member = running(owned(pod(GOOD, name="busy-1", namespace="a"), "ReplicaSet", "busy"))
    server = serve(lone, old, busy, member, deployment(GOOD, name="web", namespace="a"))
    assert scan(server).listed("fail") == ["a/ReplicaSet/lone"]
    names = Counter(r.path for r in server.requests if "/replicasets/" in r.path)
    assert names == {"/apis/apps/v1/namespaces/a/replicasets/lone": 1}
    server.inject("/replicasets/lone", status(403))
    found = scan(server)
    assert (found.code, found.listed("unknown")) == (3, ["a/replicasets/*"])
    assert found.gaps["replicasets", "a"]["permission"] == "get replicasets.apps in namespace a"


def test_ids_stay_when_jobs_are_denied(serve, scan):
    def run(name):
        job = owned(deployment(BAD, name=name, namespace="a", kind="Job"), "CronJob", "report", "batch/v1")
        return [job, running(owned(pod(BAD, name=f"{name}-x", namespace="a"), "Job", name, "batch/v1"))]

    template = {"spec": {"template": {"spec": {"containers": [BAD]}}}}
    cron = {"kind": "CronJob", "metadata": {"name": "report", "namespace": "a"}, "spec": {"jobTemplate": template}}
    server = serve(cron, *run("report-29012340"), *run("report-29012345"))
    allowed = scan(server)
    assert allowed.listed("fail") == ["a/CronJob/report"]
    assert allowed.only()["occurrences"] == 2
    server.deny("jobs")
    assert scan(server).ids("fail") == allowed.ids()
    server.deny("cronjobs")
    assert scan(server).ids("fail") == allowed.ids()
    server.deny("pods")
    found = scan(server)
    assert found.listed("fail") == []
    assert found.listed("unknown") == ["*/cronjobs/*", "*/jobs/*", "*/pods/*"]


# -- bundles


def test_a_bundle_gives_the_same_report(serve, scan, tmp_path):
    server = serve(namespaces=())
    cluster_data.populate(server, 300)
    server.deny("pods", "team-07")
    server.deny("serviceaccounts")
    live = scan(server, "--status", "all", checks=())
    path = server.kubeconfig(tmp_path / "config")
    collected = kubeposture("collect", "kubeconfig", "--kubeconfig", path, "-o", "bundle")
    assert (collected.code, collected.stdout) == (3, "")
    assert "1 of them incomplete" in collected.stderr
    later = Scan(kubeposture("evaluate", "bundle", "-o", "json", "--status", "all"))
    assert later.code == live.code == 3
    assert later.timeless() == live.timeless()
    assert [p.name for p in tmp_path.iterdir()] == ["config", "bundle"]


# -- a process of its own


def test_the_command_from_outside(small, scan):
    here, there = scan(small), scan(small, by=process)
    assert (there.code, there.error) == (0, "")
    assert there.timeless() == here.timeless()
    assert scan(small, "--fail-on", "medium", by=process).code == 1


# -- small changes that would hide something


def ingress():
    spec = {"tls": [{"hosts": ["h.x"]}], "rules": [{"host": "h.x"}]}
    meta = {"name": "i", "namespace": "a"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": spec}


def bundle(server, tmp_path, name, *args):
    path = tmp_path / name
    kubeposture("collect", "kubeconfig", "--kubeconfig", server.kubeconfig(tmp_path / "c"), "-o", path, *args)
    return path


def judged(*bundles, args=()):
    return Scan(kubeposture("evaluate", *bundles, "-c", PRIVILEGED, "-o", "json", *args))


def test_a_list_that_says_there_is_more_but_not_where_is_a_gap(serve, scan):
    server = serve()
    server.inject(PODS, body(b'{"kind":"PodList","metadata":{"remainingItemCount":7},"items":[]}'))
    found = scan(server)
    assert [(g["what"], g["reason"]) for g in found.report["gaps"]] == [("pods", "bad_data")]


def test_an_ingress_without_a_class_on_gke_is_gce(serve, scan):
    server = serve(ingress())
    server.inject("^/version", body(json.dumps({"gitVersion": "v1.30.5-gke.1"}).encode()))
    found = scan(server, checks=("k8s-https-only",))
    assert [f["reason"] for f in found.report["findings"]] == ["no_redirect"]


def test_what_the_second_look_at_a_cluster_adds_counts_once_and_trips_the_gate(serve, tmp_path):
    old = bundle(serve(running(pod(GOOD, name="x", namespace="a"))), tmp_path, "old")
    new = bundle(serve(running(pod(BAD, name="y", namespace="a"))), tmp_path, "new")
    found = judged(old, new, args=("--fail-on", "medium"))
    assert (found.code, found.report["summary"]["by_status"]["fail"]) == (1, 1)
    assert judged(new, new).report["summary"] == judged(new).report["summary"]


def test_a_gap_that_is_no_list_counts_for_min_coverage(serve, scan):
    server = serve(running(pod(GOOD, namespace="a")))
    assert scan(server, "-n", "a", "-n", "typo", "--min-coverage", "100%").code == 3


def test_what_was_not_collected_makes_a_report_incomplete(serve, tmp_path):
    saved = bundle(serve(running(pod(BAD, namespace="a")), ingress()), tmp_path, "b", "-c", "k8s-https-only")
    found = Scan(kubeposture("evaluate", saved, "-c", PRIVILEGED, "-c", "k8s-https-only", "-o", "json"))
    assert (found.code, found.report["scan"]["complete"]) == (3, False)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_looks_at_a_cluster_the_worse_answer_stands(serve, tmp_path, order):
    looks = [
        bundle(serve(running(pod(good, name="x", namespace="a"))), tmp_path, name)
        for name, good in (("old", GOOD), ("new", BAD))
    ]
    found = judged(*looks[::order], args=("--status", "all", "--fail-on", "medium"))
    assert found.code == 1
    assert [f["status"] for f in found.report["findings"] if f["check"] == PRIVILEGED] == ["fail"]


def test_lone_replica_set_beside_a_running_deployment_of_a_like_name(serve, scan):
    lone = merged(deployment(BAD, name="web-canary", namespace="a"), {"kind": "ReplicaSet"})
    found = scan(serve(replica(1, GOOD), lone))
    assert found.listed("fail") == ["a/ReplicaSet/web-canary"]


def test_running_pod_without_a_phase_counts(serve, scan):
    silent = merged(running(pod(BAD, name="x", namespace="a")), {"status": {"phase": None}})
    assert scan(serve(silent)).listed("fail") == ["a/Pod/x"]


def test_broken_pod_of_a_run_is_reported_under_its_cron_job(serve, scan):
    broken = running(owned(pod({**BAD, "ports": 5}, name="cj-28000001-x", namespace="a"), "Job", "cj-28000001"))
    found = scan(serve(broken))
    assert [(f["status"], f["resource"]["kind"], f["resource"]["name"]) for f in found.report["findings"]] == [
        ("error", "CronJob", "cj")
    ]


def test_second_look_keeps_the_counts_right_where_the_first_was_exempted(serve, tmp_path):
    denied = serve(running(pod(BAD, name="x", namespace="a")))
    denied.deny("pods")
    entry = {"checks": [PRIVILEGED], "resources": {"kind": "pods"}, "reason": "no rights yet"}
    (tmp_path / "kubeposture.yaml").write_text(json.dumps({"exemptions": [entry]}))
    first = bundle(denied, tmp_path, "first")
    second = bundle(serve(running(pod(BAD, name="x", namespace="a"))), tmp_path, "second")
    summary = judged(first, second).report["summary"]
    assert summary["exempted"] == 1
    assert summary["by_status"]["fail"] == 1
    assert min(summary["by_status"].values()) == 0


def test_a_list_that_comes_again_and_again_is_no_list(serve, scan):
    server = serve()
    page = {"kind": "PodList", "metadata": {"continue": "same"}, "items": []}
    server.inject(PODS, body(json.dumps(page).encode()))
    report = scan(server).report
    assert "the list of pods comes again and again" in {gap["detail"] for gap in report["gaps"]}
