"""Nights of scans of one cluster: what is new and what is gone is what a cluster's API server says."""

import gzip
import json
import re

import pytest
from apiserver import ApiServer, hang, status
from cli import kubeposture
from scan_data import digest, metadata, result, trivy, vulnerability
from support import container, merged, pod
from test_live import BAD, GOOD, LIMITS, PRIVILEGED, UID, Scan, deny_cluster_wide, namespace, replica, running

from providers.kubernetes import connection

SOME = ("-c", PRIVILEGED, "-c", LIMITS)
TRUSTED = "k8s-trusted-registries"


@pytest.fixture(autouse=True)
def impatient(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "_BACKOFF", 0.01)
    monkeypatch.setattr(connection, "_LONGEST_WAIT", 0.05)


def lone(name, where, how=BAD):
    return running(pod(how, name=name, namespace=where))


ESTATE = (lone("x", "a"), lone("y", "b"), replica(1, BAD, of="web", namespace="b"))


class Cluster:
    """One cluster whose nights differ: each scan starts the server anew."""

    def __init__(self, path):
        self.path = path

    def night(self, *objects, args=SOME, spaces=("a", "b"), prepare=lambda server: None, name="prod", by=None):
        with ApiServer([namespace("kube-system", UID), *map(namespace, spaces), *objects]) as server:
            prepare(server)
            config = server.kubeconfig(self.path / "config")
            text = (self.path / "config").read_text()
            (self.path / "config").write_text(text.replace('"test"', f'"{name}"'))
            run = by or self.scan
            return run(config, *args)

    def scan(self, config, *args):
        self.code = None
        result = kubeposture("scan", "kubeconfig", "--kubeconfig", config, "-o", "json", "--history", "h.db", *args)
        assert result.stdout, result.stderr
        self.code = result.code
        return Scan(result)

    def bundle(self, config, *args):
        collected = kubeposture("collect", "kubeconfig", "--kubeconfig", config, "-o", "bundle")
        assert (self.path / "bundle").exists(), collected.stderr
        return self.evaluate(*args)

    def evaluate(self, *args):
        return Scan(kubeposture("evaluate", "bundle", "-o", "json", "--history", "h.db", *args))

    def rows(self, state="all"):
        return json.loads(kubeposture("history", "list", "h.db", "--state", state, "-o", "json").stdout)

    def open(self, check=PRIVILEGED):
        return sorted(f"{r['namespace']}/{r['name']}" for r in self.rows("open") if r["check"] == check)


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


def changes(scan):
    return {name: n for name, n in scan.report["changes"].items() if n}


def deny(*places):
    return lambda server: [server.deny("pods", place) for place in places]


def test_the_first_night_everything_is_new_and_then_nothing(cluster):
    first = cluster.night(*ESTATE)
    assert changes(first) == {"new": len(first.report["findings"])}
    assert {f["lifecycle"]["state"] for f in first.report["findings"]} == {"new"}
    second = cluster.night(*ESTATE)
    assert changes(second) == {"unchanged": len(first.report["findings"])}
    assert {f["lifecycle"]["state"] for f in second.report["findings"]} == {"open"}


def test_a_denied_namespace_closes_nothing_and_creates_nothing_the_night_after(cluster):
    everything = changes(cluster.night(*ESTATE))["new"]
    before = cluster.rows()

    def denied(server):
        deny_cluster_wide(server)
        server.deny("pods", "b")

    tonight = cluster.night(*ESTATE, prepare=denied)
    found = changes(tonight)
    assert found.keys() == {"new", "unchanged", "incomparable"}
    assert found["new"] == len(SOME) // 2  # that the pods of b are not known, once for each check
    assert [r for r in cluster.rows() if r["namespace"] == "b" and r["kind"] != "pods"] == [
        r for r in before if r["namespace"] == "b"
    ]
    after = changes(cluster.night(*ESTATE))
    assert after == {"resolved": len(SOME) // 2, "unchanged": everything}
    assert {(r["kind"], r["close_reason"]) for r in cluster.rows("resolved")} == {("pods", "fixed")}


def test_what_is_deleted_and_what_is_fixed(cluster):
    cluster.night(*ESTATE)
    cluster.night(lone("x", "a", GOOD), replica(1, BAD, of="web", namespace="b"))
    closed = {(r["check"], r["name"]): r["close_reason"] for r in cluster.rows("resolved")}
    assert (closed[PRIVILEGED, "x"], closed[PRIVILEGED, "y"], closed[LIMITS, "y"]) == ("fixed", "deleted", "deleted")
    assert cluster.open() == ["b/web"]
    again = cluster.night(*ESTATE)
    assert changes(again)["reopened"] == len(closed)
    assert {f["lifecycle"]["state"] for f in again.report["findings"]} == {"open", "reopened"}


def test_a_namespace_that_is_gone_takes_its_findings_with_it(cluster):
    cluster.night(*ESTATE)
    cluster.night(ESTATE[0], spaces=("a",), prepare=deny_cluster_wide)
    assert cluster.open() == ["a/x"]


@pytest.mark.parametrize(
    "args",
    [
        ("-c", LIMITS),
        (*SOME, "-n", "a"),
        (*SOME, "--exclude-namespace", "b*"),
        (*SOME, "--param", f"{PRIVILEGED}.excluded_containers=c,d"),
    ],
    ids=["check", "namespace", "exclude", "parameter"],
)
def test_what_was_not_asked_for_is_not_gone(cluster, args):
    cluster.night(*ESTATE)
    cluster.night(args=args)
    assert {"b/y", "b/web"} <= set(cluster.open())
    cluster.night()
    assert cluster.open() == []


def test_minus_n_closes_in_its_namespace(cluster):
    cluster.night(*ESTATE)
    cluster.night(args=(*SOME, "-n", "a"))
    assert cluster.open() == ["b/web", "b/y"]


@pytest.mark.parametrize(
    "prepare",
    [
        deny(None),
        lambda server: server.inject(r"^/api/v1/pods\?", status(500)),
        lambda server: server.inject(r"^/api/v1/pods\?", hang()),
        lambda server: server.deny("deployments"),
    ],
    ids=["forbidden", "error", "hangs", "another kind of workload"],
)
def test_a_night_without_an_answer_closes_nothing(cluster, prepare):
    cluster.night(*ESTATE)
    cluster.night(*ESTATE, prepare=prepare, args=(*SOME, "--request-timeout", "0.5"))
    assert {"a/x", "b/y", "b/web"} <= set(cluster.open())
    cluster.night(*ESTATE)
    assert cluster.open() == ["a/x", "b/web", "b/y"]
    assert not [r for r in cluster.rows("resolved") if r["name"] != "*"]


@pytest.mark.parametrize("path", [r"^/", r"^/api/v1/namespaces/kube-system"], ids=["at all", "its uid"])
def test_a_night_without_credentials_closes_nothing_and_is_over_the_night_after(cluster, path):
    """What it left unknown was of a cluster whose uid could not be read."""
    with ApiServer([namespace("kube-system", UID), *map(namespace, "ab"), *ESTATE]) as server:
        config = server.kubeconfig(cluster.path / "config")
        cluster.scan(config, *SOME)
        rows = cluster.rows()
        server.inject(path, status(401))
        tonight = cluster.scan(config, *SOME)
        assert changes(tonight)["incomparable"] == len(rows)
        server._rules.clear()
        after = cluster.scan(config, *SOME)
    assert changes(after)["unchanged"] == len(rows)
    assert "new" not in changes(after)
    lists = [r for r in cluster.rows("open") if r["name"] == "*"]
    assert lists == []


def test_an_object_that_is_not_understood_proves_nothing_beside_it(cluster):
    cluster.night(*ESTATE)
    broken = {"kind": "Pod", "metadata": {"name": "y", "namespace": "b"}, "spec": {"containers": "none"}}
    cluster.night(ESTATE[0], broken)
    assert cluster.open() == ["a/x", "b/web", "b/y"]
    assert cluster.open("k8s-invalid-object") == ["b/y"]
    cluster.night(*ESTATE)
    assert cluster.open("k8s-invalid-object") == []


def test_pods_that_roll_change_nothing(cluster):
    cluster.night(*(replica(n, BAD) for n in range(3)))
    other = {**BAD, "image": "nginx:2@sha256:" + "a" * 64}
    assert changes(cluster.night(*(replica(n, other) for n in range(10, 15)))).keys() == {"unchanged"}


def test_one_cluster_by_any_name_and_through_a_bundle(cluster):
    first = changes(cluster.night(*ESTATE))["new"]
    assert changes(cluster.night(*ESTATE, name="other")) == {"unchanged": first}
    assert changes(cluster.night(*ESTATE, by=cluster.bundle)) == {"unchanged": first}
    assert changes(cluster.night(*ESTATE)) == {"unchanged": first}


def test_an_older_bundle_tells_nothing(cluster, monkeypatch):
    cluster.night(lone("old", "a"), by=cluster.bundle)
    aged = (cluster.path / "bundle").read_bytes()
    cluster.night(*ESTATE)
    rows = cluster.rows()
    (cluster.path / "bundle").write_bytes(_observed(aged, "2020-01-01T00:00:00Z"))
    old = cluster.evaluate(*SOME)
    assert changes(old).keys() == {"incomparable"}
    assert [f for f in old.report["findings"] if f["lifecycle"]] == []
    assert cluster.rows() == rows


def test_a_bundle_from_the_future_locks_nobody_out(cluster):
    cluster.night(*ESTATE, by=cluster.bundle)
    late = _observed((cluster.path / "bundle").read_bytes(), "9999-01-01T00:00:00Z")
    (cluster.path / "bundle").write_bytes(late)
    cluster.evaluate(*SOME)
    cluster.night()
    assert cluster.open() == []


def _observed(bundle, time):

    return gzip.compress(
        re.sub(rb'"observed_at":"[^"]+"', b'"observed_at":"%s"' % time.encode(), gzip.decompress(bundle))
    )


def test_a_bundle_of_one_namespace_says_nothing_of_others(cluster):
    cluster.night(*ESTATE)

    def bundle(config, *args):
        kubeposture("collect", "kubeconfig", "--kubeconfig", config, "-o", "bundle", "-n", "a")
        return cluster.evaluate(*args)

    cluster.night(by=bundle)
    assert cluster.open() == ["b/web", "b/y"]


def test_two_looks_at_one_cluster_are_one(cluster):
    def twice(config, *args):
        kubeposture("collect", "kubeconfig", "--kubeconfig", config, "-o", "bundle")
        return Scan(kubeposture("evaluate", "bundle", "bundle", "-o", "json", "--history", "h.db", *args))

    first = changes(cluster.night(*ESTATE))["new"]
    assert changes(cluster.night(*ESTATE, by=twice)) == {"unchanged": first}
    assert changes(cluster.night(by=twice))["resolved"] >= 3


def test_an_unset_parameter_is_resolved_when_it_is_set(cluster):
    image = lone("x", "a", container(image="evil.example.com/x:1"))
    cluster.night(image, args=("-c", TRUSTED))
    [row] = cluster.rows("open")
    assert (row["reason"], row["about"]) == ("configuration_required", "parameter")
    given = ("-c", TRUSTED, "--param", f"{TRUSTED}.allowed_images_regex=^good/")
    assert changes(cluster.night(image, args=given)) == {"new": 1, "resolved": 1}
    assert [r["name"] for r in cluster.rows("open")] == ["x"]


def scanned(name, *found):
    image = f"registry.example.com/shop/{name}"
    about = {
        "RepoTags": [f"{image}:1.0"],
        "RepoDigests": [f"{image}@{digest(name)}"],
        "ImageID": digest(name + " config"),
    }
    return trivy(ArtifactName=f"{image}:1.0", Metadata=metadata(**about), Results=[result(*found)])


def test_images_are_clean_only_where_the_same_sources_say_so(cluster):
    image = "registry.example.com/shop/web"
    state = {"name": "c", "image": f"{image}:1.0", "imageID": f"{image}@{digest('web')}"}
    item = merged(
        running(pod(container(name="c", image=f"{image}:1.0"), name="x", namespace="a")),
        {"status": {"containerStatuses": [state]}},
    )
    platform = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    node = {"kind": "Node", "metadata": {"name": "node-1", "labels": platform}}
    check = "k8s-running-image-vulns"
    for name, reports in {
        "bad": [scanned("web", vulnerability())],
        "good": [scanned("web"), scanned("other")],
        "others": [scanned("other")],
    }.items():
        (cluster.path / name).mkdir()
        for n, each in enumerate(reports):
            (cluster.path / name / f"{n}.json").write_text(json.dumps(each))

    def night(*sources):
        given = [part for name in sources for part in ("--vulnerabilities", name)]
        return cluster.night(node, item, args=("-c", check, "--max-scan-age", "10000", *given))

    night("bad")
    assert cluster.open(check) == ["a/x"]
    night("others")  # unknown
    night()
    assert "a/x" in cluster.open(check)
    denied = ("-c", check, "--max-scan-age", "10000", "--vulnerabilities", "good")
    cluster.night(node, item, args=denied, prepare=deny(None))
    assert "a/x" in cluster.open(check)
    night("good")
    assert "a/x" not in cluster.open(check)
    assert [r["close_reason"] for r in cluster.rows("resolved") if r["name"] == "x"] == ["fixed"]


def test_a_rebuild_with_the_same_vulnerabilities_changes_nothing(cluster):
    """Another digest and tag, scanned on another day, by one more source."""
    node = {
        "kind": "Node",
        "metadata": {"name": "node-1", "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
    }
    given = ("-c", "k8s-running-image-vulns", "--vulnerabilities", "reports")
    (cluster.path / "reports").mkdir()
    told = []
    for build, day in (("one", "2026-05-04"), ("two", "2026-05-05")):
        image = f"registry.example.com/shop/web:{build}"
        state = {"name": "c", "image": image, "imageID": f"registry.example.com/shop/web@{digest(build)}"}
        item = running(pod(container(name="c", image=image), name="x", namespace="a"))
        about = {"RepoTags": [image], "RepoDigests": [state["imageID"]], "ImageID": digest(f"config {build}")}
        report = trivy(CreatedAt=f"{day}T00:00:00Z", Metadata=metadata(**about), Results=[result(vulnerability())])
        (cluster.path / "reports" / "0.json").write_text(json.dumps(report))
        found = cluster.night(node, merged(item, {"status": {"containerStatuses": [state]}}), args=given)
        told.append(changes(found))
    assert told == [{"new": 1}, {"unchanged": 1}]


def test_exempted_findings_stay_themselves(cluster):
    cluster.night(*ESTATE)
    (cluster.path / "kubeposture.yaml").write_text(
        f"exemptions:\n- {{checks: [{PRIVILEGED}], reason: known, resources: {{name: x}}}}\n"
    )
    assert changes(cluster.night(*ESTATE))["changed"] == 1
    cluster.night()
    assert cluster.open() == []


def test_an_interrupted_scan_leaves_the_history_alone(cluster, monkeypatch):
    cluster.night(*ESTATE)
    rows = cluster.rows()
    from scanner.cli.judge import Scan as Judge

    def interrupted(self):
        raise KeyboardInterrupt

    real = Judge._judge_waiting
    calls = []
    monkeypatch.setattr(Judge, "_judge_waiting", lambda self: real(self) if calls else interrupted(calls.append(1)))
    stopped = cluster.night(args=(*SOME, "--fail-on-new", "low"))
    assert cluster.code == 130
    assert stopped.report["changes"] is None
    assert "interrupted: the history stays as it was" in stopped.report["scan"]["warnings"]
    assert cluster.rows() == rows


def test_the_history_changes_nothing_else_in_the_report(cluster):
    def without(config, *args):
        return Scan(kubeposture("scan", "kubeconfig", "--kubeconfig", config, "-o", "json", *args))

    cluster.night(*ESTATE)
    scans = [cluster.night(*ESTATE, by=by).timeless() for by in (cluster.scan, without)]
    for report in scans:
        del report["changes"], report["scan"]["id"]
        for finding in report["findings"]:
            del finding["lifecycle"]
    assert scans[0]["summary"] == scans[1]["summary"]
    assert scans[0]["findings"] == scans[1]["findings"]
